"""Asks of suite D about code, asks that need no tool, and the slots all asks are filled from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ask:
    """One thing to ask for.

    Attributes:
        tool: The fitting tool; `also` names others that fit as well.
        arguments: A good call's arguments, with slots in braces.
        phrasings: Ways to ask, written independently; the first can follow "do both".
        integers: Arguments that are whole numbers.
        joinable: Independent of everything else, so that it can be asked for beside another.
    """

    tool: str
    arguments: dict[str, Any]
    phrasings: tuple[str, ...]
    integers: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    joinable: bool = False


SLOTS: dict[str, tuple[str, ...]] = {
    "file": (
        "src/app/main.py", "lib/cache.ts", "docs/setup.md", "config/default.yml", "server/routes.py", "web/index.html",
        "pkg/queue/worker.go", "scripts/deploy.sh", "tests/test_login.py", "src/parser/lexer.rs", "app/models/user.rb",
        "package.json", "Makefile", "ui/components/Table.tsx", "core/events.py", "db/schema.sql",
    ),
    "folder": ("src", "lib", "tests", "docs", "config", "server", "web", "scripts", "migrations", "packages/core"),
    "extension": ("py", "ts", "md", "json", "go", "rs", "sql", "yml", "css", "sh"),
    "symbol": (
        "parse_header", "UserSession", "retry_count", "flush_buffer", "OrderTotals", "send_digest", "is_expired",
        "TokenBucket", "load_fixture", "rotate_keys", "compute_hash", "PageCursor",
    ),
    "old": ("DEBUG = True", "timeout = 30", "retries: 2", "localhost", "beta", "v1"),
    "new": ("DEBUG = False", "timeout = 90", "retries: 5", "example.test", "stable", "v2"),
    "text": ("hello", "work in progress", "generated, do not edit", "see the handbook", "version 3"),
    "number": ("10", "20", "25", "40", "50", "75", "100"),
    "city": ("Lisbon", "Osaka", "Nairobi", "Bergen", "Quito", "Tartu", "Hobart", "Leeds"),
    "other_city": ("Porto", "Kyoto", "Accra", "Malmo", "Lima", "Riga", "Perth", "York"),
    "person": ("Dana", "Milo", "Ines", "Ravi", "Greta", "Tom", "Aiko", "Sena"),
    "date": ("2026-03-14", "2026-04-02", "2026-05-21", "2026-06-30", "2026-07-09", "2026-09-18"),
    "time": ("08:30", "10:00", "13:15", "16:45", "19:20"),
    "amount": ("40", "75", "120", "260", "999"),
    "currency": ("EUR", "USD", "JPY", "CHF", "SEK"),
    "other_currency": ("GBP", "CAD", "NOK", "INR", "BRL"),
    "room": ("kitchen", "bedroom", "office", "hallway", "garage"),
    "topic": ("budget", "kick-off", "holiday plan", "security review", "new hire"),
    "dish": ("lentil soup", "apple cake", "fried rice", "tomato salad", "pancakes"),
    "product": ("desk lamp", "rain jacket", "travel mug", "headphones", "notebook"),
    "order": ("A1042", "B7719", "C3380", "D9051", "E2263"),
    "song": ("Blue in Green", "Clair de Lune", "Take Five", "Gymnopedie", "Autumn Leaves"),
    "symbol_stock": ("ACME", "NOVA", "ORBT", "PINE", "ZETA"),
    "table": ("customers", "invoices", "shipments", "sessions", "refunds"),
    "language": ("French", "Japanese", "Polish", "Swahili", "Finnish"),
    "sentence": ("good morning", "where is the station", "thank you for waiting", "the meeting is over"),
}  # fmt: skip

CODING_ASKS: tuple[Ask, ...] = (
    Ask("Read", {"file_path": "{file}"}, (
        "Show me the contents of {file}.", "Open {file} and let me see it.", "What's in {file}?", "I want to read {file}.",
    ), also=("Bash",), joinable=True),
    Ask("Read", {"file_path": "{file}", "limit": "{number}"}, (
        "Show me the first {number} lines of {file}.", "Read {file}, but only its first {number} lines.",
    ), integers=("limit",), also=("Bash",), joinable=True),
    Ask("Read", {"file_path": "{file}", "offset": "{number}"}, (
        "Show {file} starting at line {number}.", "From line {number} on, what does {file} say?",
    ), integers=("offset",), also=("Bash",)),
    Ask("Grep", {"pattern": "{symbol}"}, (
        "Find every use of {symbol}.", "Where is {symbol} mentioned in the code?", "Search the repository for {symbol}.",
        "Which files mention {symbol}?",
    ), also=("Bash",), joinable=True),
    Ask("Grep", {"pattern": "{symbol}", "path": "{folder}"}, (
        "Search {folder} for {symbol}.", "Does anything in {folder} refer to {symbol}? Look it up.",
    ), also=("Bash",), joinable=True),
    Ask("Grep", {"pattern": "TODO", "glob": "*.{extension}"}, (
        "Find the TODO comments in all .{extension} files.", "List TODOs, only in files ending in .{extension}.",
    ), also=("Bash",)),
    Ask("Glob", {"pattern": "**/*.{extension}"}, (
        "List all .{extension} files.", "Which files end in .{extension}?", "Find every {extension} file in the project.",
    ), also=("Bash",), joinable=True),
    Ask("Glob", {"pattern": "{folder}/**/*.{extension}"}, (
        "List the .{extension} files below {folder}.", "Which {extension} files are there in {folder}?",
    ), also=("Bash",), joinable=True),
    Ask("Write", {"file_path": "notes/{topic}.txt", "content": "{text}"}, (
        "Create the file notes/{topic}.txt with the text: {text}", "Write '{text}' into a new file notes/{topic}.txt.",
    ), also=("Bash",)),
    Ask("Write", {"file_path": "{folder}/VERSION", "content": "{number}"}, (
        "Put the number {number} into a new file {folder}/VERSION.", "Make a file {folder}/VERSION that says {number}.",
    ), also=("Bash",)),
    Ask("Edit", {"file_path": "{file}", "old_string": "{old}", "new_string": "{new}"}, (
        "In {file}, replace '{old}' by '{new}'.", "Change '{old}' to '{new}' in {file}.",
        "Edit {file}: '{old}' has to become '{new}'.",
    ), also=("Bash",)),
    Ask("Edit", {"file_path": "{file}", "old_string": "{symbol}", "new_string": "{symbol}_old", "replace_all": True}, (
        "Rename {symbol} to {symbol}_old everywhere in {file}.",
        "Every {symbol} in {file} should be called {symbol}_old from now on.",
    ), also=("Bash",)),
    Ask("Bash", {"command": "git status"}, (
        "Show me the state of the git working tree with {folder} as it is now.", "Run git status.",
    )),
    Ask("Bash", {"command": "git log --oneline -n {number}"}, (
        "Show the last {number} commits.", "What were the most recent {number} commits, one line each?",
    ), joinable=True),
    Ask("Bash", {"command": "pytest {folder}"}, (
        "Run the tests in {folder} with pytest.", "Execute pytest for {folder}.", "Please run pytest on {folder}.",
    ), joinable=True),
    Ask("Bash", {"command": "wc -l {file}"}, (
        "Count the lines of {file} with wc.", "Run wc -l on {file}.",
    ), joinable=True),
    Ask("Bash", {"command": "mkdir -p {folder}/archive"}, (
        "Make a folder archive inside {folder}.", "Create the directory {folder}/archive.",
    ), joinable=True),
    Ask("Bash", {"command": "git diff {file}"}, (
        "Show the uncommitted changes in {file}.", "Run git diff for {file}.",
    ), joinable=True),
    Ask("Bash", {"command": "du -sh {folder}"}, (
        "How much disk space does {folder} take?", "Measure the size of {folder} on disk.",
    ), joinable=True),
    Ask("Bash", {"command": "mv {file} {folder}/"}, (
        "Move {file} into {folder}.", "Put {file} in the folder {folder} instead.",
    )),
    Ask("TodoWrite", {"todos": [
        {"content": "Fix {symbol}", "status": "pending", "activeForm": "Fixing {symbol}"},
    ]}, (
        "Put 'Fix {symbol}' on your todo list as pending.", "Note down a todo: fix {symbol}.",
    )),
    Ask("WebFetch", {"url": "https://docs.example.test/{topic}", "prompt": "Summarise the page"}, (
        "Fetch https://docs.example.test/{topic} and summarise it.",
        "Give me a summary of the page https://docs.example.test/{topic}.",
    )),
)  # fmt: skip

_EXPLAIN = (
    "recursion", "a hash table", "a deadlock", "eventual consistency", "a foreign key", "dependency injection",
    "a race condition", "memoisation", "a bloom filter", "big-O notation", "a closure", "garbage collection",
    "a B-tree", "the CAP theorem", "idempotency", "a mutex", "unit testing", "semantic versioning", "a linked list",
    "tail recursion", "polymorphism", "a message queue", "a checksum", "binary search", "a pure function",
)  # fmt: skip
_KNOWN = (
    "What does HTTP status 404 mean?", "What is 17 times 6?", "What does the acronym SQL stand for?",
    "Which sorting algorithms are stable? Two names are enough.", "What is the capital of Portugal?",
    "Say hello in one word.", "How many bits has a byte?", "What does 'DRY' mean in programming?",
    "Thanks, that was all for today.", "Who are you?", "What is 2 to the power of 10?",
    "In one sentence, what is the difference between a list and a tuple in Python?",
    "What does git rebase do, in general?", "When would one use a set instead of a list?",
    "Which planet is the largest in the solar system?", "What is the boiling point of water in Celsius?",
    "Name three primary colours.", "What does JSON stand for?", "Is 91 a prime number?",
    "What does the Python keyword yield do?", "How do I exit vim?", "What is the plural of 'index'?",
    "Give me a synonym for 'fast'.", "What is the opposite of 'verbose'?", "What is a good name for a counter variable?",
    "Translate 'cat' into Spanish.", "How many minutes are in a day?", "What does POSIX stand for?",
    "Which is larger, 0.3 or 0.25?", "What is a palindrome? Give an example.",
)  # fmt: skip
NO_TOOL_ASKS: tuple[str, ...] = (
    *_KNOWN,
    *(f"Explain {thing} in two sentences." for thing in _EXPLAIN),
    *(f"Without looking anything up: why would one care about {thing}?" for thing in _EXPLAIN),
)
