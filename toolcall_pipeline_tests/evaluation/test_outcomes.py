"""What each suite makes of a completion: one row per outcome."""

import json

import pytest

from toolcall_pipeline.evaluation.backends import Generation
from toolcall_pipeline.evaluation.cases import Case, ParsedCall
from toolcall_pipeline.evaluation.loops import call_key
from toolcall_pipeline.evaluation.outcomes import score
from toolcall_pipeline.evaluation.outcomes.common import are_values_equal
from toolcall_pipeline.evaluation.play import read_turn
from toolcall_pipeline.evaluation.suites.catalogue import CODING_TOOLS, EXTRA_TOOLS, pick_tools

TOOLS = pick_tools((*CODING_TOOLS, *EXTRA_TOOLS[:3]), [])
USER = {"role": "user", "content": "Which port does /home/user/app/config/server.ini set, and who is in app/team.json?"}


def tool_message(content):
    return {"role": "tool", "content": content}


def assistant(name, **arguments):
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
    }


def completion(*calls, text=""):
    return text + "\n".join(
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>" for name, arguments in calls
    )


def make_case(suite, *, messages=(USER,), stratum="", **expected):
    return Case(
        suite=suite, case_id="x", cluster_id="x", stratum=stratum, messages=messages, tools=TOOLS, expected=expected
    )


def outcome(case, raw, labels=None, *, hit_token_limit=False):
    turn = read_turn(Generation(raw, hit_token_limit=hit_token_limit), case)
    return score(case, [turn], labels)


READ = ("Read", {"file_path": "/home/user/app/config/server.ini"})
CASE_A = make_case(
    "A", calls=[{"name": "Read", "arguments": {"file_path": "/home/user/app/config/server.ini", "limit": 5}}]
)


@pytest.mark.parametrize(
    ("raw", "expected", "passed"),
    [
        (completion(("Read", {"file_path": "other.ini", "limit": 9})), "shape_match", True),  # tool and keys
        (
            completion(("Read", {"file_path": "app/config/server.ini"})),
            "close_match",
            False,
        ),  # half the values, as paths
        (completion(("Read", {"file_path": "other.ini"})), "wrong", False),
        (completion(("Bash", {"command": "cat config/server.ini"})), "wrong", False),
        ("It is 80.", "text_instead_of_call", False),
        ("<tool_call>{bad</tool_call>", "wrong", False),
    ],
)
def test_suite_a(raw, expected, passed):
    scored = outcome(CASE_A, raw)
    assert (scored.outcome, scored.passed) == (expected, passed)


@pytest.mark.parametrize(
    ("session", "ours", "expected"),
    [
        ({"command": "ls", "description": "List"}, {"command": "ls"}, "shape_match"),
        ({"command": "ls"}, {"command": "ls", "description": "List", "run_in_background": False}, "shape_match"),
        ({"command": "ls", "timeout": 9000}, {"command": "pwd"}, "wrong"),
        ({"command": "ls"}, {"command": "ls", "run_in_background": True}, "close_match"),
        ({"command": "ls", "description": "List"}, {"description": "List"}, "close_match"),  # what is required tells
    ],
)
def test_arguments_that_change_nothing_do_not_change_the_shape(session, ours, expected):
    case = make_case("A", calls=[{"name": "Bash", "arguments": session}])
    assert outcome(case, completion(("Bash", ours))).outcome == expected


def test_suite_a_takes_a_persons_word_for_an_alternative():
    call = ParsedCall(name="Bash", arguments={"command": "cat config/server.ini"})
    raw = completion(("Bash", {"command": "cat config/server.ini"}))
    assert outcome(CASE_A, raw, {("x", call_key(call)): True}).outcome == "plausible_alternative"
    assert outcome(CASE_A, raw, {("x", call_key(call)): False}).outcome == "wrong"


AFTER = (USER, assistant(*READ[:1], **READ[1]), tool_message("[server]\nport = 8417\nsee app/team.json"))
CALL_HALF = make_case(
    "B",
    stratum="call",
    messages=AFTER,
    calls=[{"name": "Read", "arguments": {"file_path": "/home/user/app/team.json"}}],
)
GREPPED_HALF = CALL_HALF.model_copy(
    update={"messages": (*AFTER, assistant("Grep", pattern="port", path="/home/user/app"), tool_message("port = 8417"))}
)
EDIT = {"file_path": READ[1]["file_path"], "old_string": "8417", "new_string": "80"}
EDITED_HALF = CALL_HALF.model_copy(update={"messages": (*AFTER, assistant("Edit", **EDIT), tool_message("ok"))})
ASKED_AGAIN_HALF = CALL_HALF.model_copy(
    update={"messages": (*AFTER, USER, assistant("Grep", pattern="port", path="/home/user/app"), tool_message("8417"))}
)
CONCLUDE_HALF = make_case("B", stratum="conclude", messages=AFTER, calls=[], text="Port 8417.", facts=["8417"])


@pytest.mark.parametrize(
    ("case", "raw", "expected", "passed"),
    [
        (CALL_HALF, completion(("Read", {"file_path": "/home/user/app/team.json"})), "fitting_call", True),
        (CALL_HALF, completion(("Bash", {"command": "cat app/team.json"})), "fitting_call", True),  # another good way
        (CALL_HALF, completion(("Bash", {"command": "cat elsewhere/people.txt"})), "off_topic", False),
        (CALL_HALF, completion(("WebSearch", {"query": "port"})), "off_topic", False),
        (CALL_HALF, completion(("Read", {})), "off_topic", False),
        (CALL_HALF, completion(READ), "identical_repeat", False),
        (EDITED_HALF, completion(READ), "fitting_call", True),  # the file was changed since
        (ASKED_AGAIN_HALF, completion(READ), "fitting_call", True),
        (GREPPED_HALF, completion(READ), "identical_repeat", False),  # nothing was, though it is not the last call
        (CALL_HALF, completion(*[("Read", {"file_path": "/home/user/app/team.json"})] * 2), "identical_repeat", False),
        (CONCLUDE_HALF, "It listens on port 8417. " * 30, "never_ends", False),
        (CALL_HALF, "The port is 8417.", "concludes_too_soon", False),
        (CALL_HALF, "", "off_topic", False),
        (CONCLUDE_HALF, "It listens on port 8417.", "conclusion_uses_result", True),
        (CONCLUDE_HALF, "I have looked at the file.", "conclusion_ignores_result", True),
        (CONCLUDE_HALF, "<think>8417</think>Done.", "conclusion_ignores_result", True),  # thought is not said
        (CONCLUDE_HALF, "<think>8417, or is it", "off_topic", False),  # a thought that never ends is no conclusion
        (CALL_HALF, "<think>I should read team.json", "off_topic", False),
        (CONCLUDE_HALF, completion(READ), "identical_repeat", False),
        (CONCLUDE_HALF, completion(("Glob", {"pattern": "app/team.json"})), "never_concludes", False),
        (CONCLUDE_HALF, "<tool_call>{", "off_topic", False),
    ],
)
def test_suite_b(case, raw, expected, passed):
    scored = outcome(case, raw)
    assert (scored.outcome, scored.passed) == (expected, passed)


def test_suite_b_counts_what_its_gates_count():
    assert outcome(CALL_HALF, "The port is 8417.").measures["concluded_too_soon"] is True
    assert outcome(CONCLUDE_HALF, "Port 8417.").measures["uses_result"] is True
    assert outcome(CONCLUDE_HALF, completion(READ)).measures["uses_result"] is False
    assert outcome(CALL_HALF, completion(("WebSearch", {"query": "port"}))).measures["wrong_action"] is True


@pytest.mark.parametrize(
    ("raw", "uses"),
    [
        ("[server]\nport = 8417", False),
        ("Here is the result:\n```\nport = 8417\n```", False),
        ("The result is:\n- port = 8417", False),
        ("It says\nport = 8417\nso the server listens on 8417.", True),
        ("`8417`", True),  # there is no other way to say a number
    ],
)
def test_a_short_result_handed_on_is_not_used(raw, uses):
    assert outcome(CONCLUDE_HALF, raw).measures["uses_result"] is uses


def test_a_long_result_copied_out_is_not_used():
    log = "\n".join(f"08:{n:02d} worker {n} finished job {n * 37}" for n in range(40))
    case = make_case("B", stratum="conclude", messages=(*AFTER[:2], tool_message(log)), calls=[], facts=["1443"])
    assert outcome(case, f"Here it is:\n{log}").measures["uses_result"] is False
    assert outcome(case, "Worker 39 finished last, with job 1443.").measures["uses_result"] is True


def test_the_words_of_a_result_in_another_order_do_not_use_it():
    lines = [f"worker_{n} finished job {n * 37} on host{n % 5}" for n in range(40)]
    case = make_case(
        "B", stratum="conclude", messages=(*AFTER[:2], tool_message("\n".join(lines))), calls=[], facts=["1443"]
    )
    assert outcome(case, " ".join(sorted(set(" ".join(lines).split())))).measures["uses_result"] is False


@pytest.mark.parametrize("suite", ["A", "B", "D", "E", "V"])
def test_what_runs_into_the_token_limit_passes_nowhere(suite):
    calls, stratum = [{"name": READ[0], "arguments": READ[1]}], {"B": "conclude"}.get(suite, "")
    raw = completion(READ) if suite in "AV" else "It is vitest."
    case = RECALL if suite == "E" else make_case(suite, stratum=stratum, calls=calls if suite == "A" else [], facts=[])
    assert outcome(case, raw).passed
    cut = outcome(case, raw, hit_token_limit=True)
    assert (cut.outcome, cut.passed) == ("never_ends", False)
    assert not any(cut.measures.get(name) for name in ("shape_match", "uses_result", "arguments_filled"))


@pytest.mark.parametrize("suite", ["A", "V"])
def test_the_same_call_twice_at_once_is_wrong_unless_it_was_asked_for(suite):
    call = {"name": READ[0], "arguments": READ[1]}
    assert outcome(make_case(suite, calls=[call]), completion(READ, READ)).outcome == "identical_repeat"
    assert outcome(make_case(suite, calls=[call, call]), completion(READ, READ)).passed


ONE = make_case("D", calls=[{"name": "Read", "arguments": {"file_path": "a.py"}}], tools=["Read", "Bash"])
TWO = make_case("D", calls=[{"name": "Read", "arguments": {"file_path": "a.py"}}] * 2, tools=["Read"])
NONE = make_case("D", calls=[], tools=[])


@pytest.mark.parametrize(
    ("case", "raw", "expected"),
    [
        (ONE, completion(("Read", {"file_path": "a.py"})), "pass"),
        (ONE, completion(("Bash", {"command": "cat a.py"})), "pass"),
        (ONE, completion(("Grep", {"pattern": "a"})), "wrong_tool"),
        (ONE, completion(("Read", {"file_path": "a.py"}), ("Read", {"file_path": "b.py"})), "wrong_call_count"),
        (ONE, completion(*[("Read", {"file_path": f"{n}.py"}) for n in range(7)]), "wrong_call_count"),
        (ONE, completion(("Read", {"file_path": "a.py"})) + "\nuser\nthanks", "text_after_call"),
        (ONE, completion(("Read", {})), "empty_arguments"),
        (ONE, completion(("Read", {"path": "a.py"})), "missing_argument"),
        (ONE, completion(("Open", {"file_path": "a.py"})), "unknown_tool"),
        (ONE, "Sure!", "no_call"),
        (TWO, completion(("Read", {"file_path": "a.py"}), ("Read", {"file_path": "b.py"})), "pass"),
        (TWO, completion(("Read", {"file_path": "a.py"})), "wrong_call_count"),
        (NONE, "Because.", "pass"),
        (NONE, completion(("Read", {"file_path": "a.py"})), "call_not_asked"),
        (NONE, "", "no_answer"),
        (NONE, "Which port does /home/user/app/config/server.ini set", "no_answer"),  # an echo
        (NONE, "<think>Let me think.", "no_answer"),
        (NONE, "I'm sorry, but I can't help with that.", "no_answer"),
        (NONE, "I do not know.", "no_answer"),
        (NONE, "I'm unable to answer.", "no_answer"),
        (NONE, "I can't think of a better answer than this: it means that nothing was found.", "pass"),
        (NONE, "I cannot recommend it enough: nothing was found.", "pass"),
        (NONE, "I'm sorry to see you go!", "pass"),
        (NONE, "I can tell you: it means that nothing was found. I cannot say more.", "pass"),
    ],
)
def test_suite_d(case, raw, expected):
    scored = outcome(case, raw)
    assert (scored.outcome, scored.passed) == (expected, expected == "pass")


FLIGHT = {"name": "search_flights", "arguments": {"origin": "Quito", "destination": "Malmo", "date": "2026-03-09"}}
FLIGHT_CASE = Case(
    suite="D",
    case_id="x",
    cluster_id="x",
    messages=({"role": "user", "content": "Find flights from Quito to Malmo on 2026-03-09."},),
    tools=(
        {
            "type": "function",
            "function": {
                "name": "search_flights",
                "parameters": {"type": "object", "required": ["origin", "destination", "date"]},
            },
        },
    ),
    expected={"calls": [FLIGHT], "tools": ["search_flights"], "named": [["Quito", "Malmo", "2026-03-09"]]},
)
READ_TWO = make_case(
    "D",
    calls=[{"name": "Read", "arguments": {"file_path": f"{name}.py"}} for name in "ab"],
    tools=["Bash", "Read"],
    named=[["a.py"], ["b.py"]],
)


@pytest.mark.parametrize(
    ("case", "raw", "passes"),
    [
        (FLIGHT_CASE, completion(("search_flights", FLIGHT["arguments"])), True),
        # the same values in another spelling
        (
            FLIGHT_CASE,
            completion(("search_flights", {"origin": "quito", "destination": "Malmö", "date": "9 3 2026"})),
            True,
        ),
        (
            FLIGHT_CASE,
            completion(("search_flights", {"origin": "Malmo", "destination": "Quito", "date": "2026-03-09"})),
            False,
        ),
        (
            FLIGHT_CASE,
            completion(("search_flights", {"origin": "Quito", "destination": "Malmo", "date": "2026-03-08"})),
            False,
        ),
        (FLIGHT_CASE, completion(("search_flights", {"origin": "A", "destination": "B", "date": "C"})), False),
        (READ_TWO, completion(("Bash", {"command": "cat 'src/b.py'"}), ("Read", {"file_path": "/x/a.py"})), True),
        (READ_TWO, completion(("Read", {"file_path": "a.py"}), ("Read", {"file_path": "a.py"})), False),
        (READ_TWO, completion(("Bash", {"command": "ls"}), ("Bash", {"command": "cat a.py b.py"})), False),
    ],
)
def test_suite_d_asks_for_what_the_ask_names(case, raw, passes):
    scored = outcome(case, raw)
    assert (scored.outcome, scored.passed) == ("pass" if passes else "wrong_values", passes)


@pytest.mark.parametrize(
    ("named", "call"),
    [
        (["rs", "TODO"], ("Grep", {"pattern": "TODO", "type": "rust"})),
        (["holiday plan"], ("WebFetch", {"url": "https://x.test/holiday%20plan", "prompt": "Summarise"})),
        (["db/schema.sql", "40"], ("Bash", {"command": "tail -n +40 db/schema.sql"})),
        (["08:30", "office"], ("Bash", {"command": "at 8:30 'ring Office'"})),
        (["core/events.py", "20"], ("Bash", {"command": "head -n20 core/events.py"})),
        (["PageCursor"], ("Grep", {"pattern": r"\bPageCursor\b"})),
    ],
)
def test_what_an_ask_names_may_be_said_in_another_way(named, call):
    case = make_case("D", calls=[{"name": call[0], "arguments": {}}], tools=[call[0]], named=[named])
    assert outcome(case, completion(call)).outcome == "pass"


def test_suite_d_tells_the_token_limit():
    assert outcome(ONE, completion(("Read", {"file_path": "a.py"})), hit_token_limit=True).outcome == "token_limit"


RECALL = make_case(
    "E",
    messages=({"role": "user", "content": "Which test runner does the project website use, jest or another?"},),
    answers=["vitest", "jest"],
    partial=["npm test"],
    distractors=["pytest", "mocha"],
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("It uses Vitest.", "pass"),
        ("Which test runner does the project website use, jest or another?", "fail"),  # an echo earns nothing
        ("vitesting", "fail"),  # no part of a word counts
        ("npm test starts it.", "partial"),
        ("vitest, pytest or mocha", "partial"),  # naming everything is no knowledge
        ("It does not use vitest.", "fail"),  # the contrary
        ("It is not mocha but vitest.", "pass"),
        ("用的是vitest。", "pass"),
        ("不用jestです", "fail"),  # an echo, whatever stands beside it
        ("", "fail"),
    ],
)
def test_suite_e(raw, expected):
    assert outcome(RECALL, raw).outcome == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (completion(("Bash", {"command": "git status"})), "arguments_filled"),
        (completion(("Bash", {})), "empty_arguments"),
        (completion(("Bash", {"command": ""})), "empty_arguments"),
        (completion(("Bash", {"command": "command"})), "empty_arguments"),  # a placeholder fills nothing
        (completion(("Read", {"file_path": "<string>"})), "empty_arguments"),
        (completion(("Bash", {"command": "string"})), "empty_arguments"),
        (completion(("Read", {"file_path": "/path/to/file"})), "empty_arguments"),
        (completion(("Read", {"file_path": "[file path]"})), "empty_arguments"),
        (completion(("Grep", {"pattern": "TODO"})), "arguments_filled"),  # a thing to look for
        (completion(("Write", {"file_path": "path.txt", "content": "content"})), "arguments_filled"),
        (completion(("Grep", {"path": "src"})), "invalid"),
        ("<tool_call>{", "invalid"),
        ("What do you mean?", "no_call"),
        (completion(("Bash", {"command": "Anything odd in the examples"})), "invalid"),  # the ask is no command
        (completion(("Grep", {"pattern": "the examples"})), "arguments_filled"),
        (
            completion(("Bash", {"command": "ls examples", "description": "Anything odd in the examples?"})),
            "arguments_filled",
        ),
    ],
)
def test_suite_v(raw, expected):
    case = make_case("V", messages=({"role": "user", "content": "anything odd in the examples?"},))
    assert outcome(case, raw).outcome == expected


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "is_equal"),
    [
        ("file_path", "./src//a.py", "src/a.py", True),
        ("file_path", "src/a.py", "/home/user/app/src/a.py", True),  # relative to the working folder
        ("file_path", "a.py", "/src/ba.py", False),
        ("file_path", "/x/a.py", "/y/a.py", False),
        ("command", "git  log -n '5'", "git log -n 5", True),
        ("command", "git log", "git status", False),
        ("command", "echo 'unclosed", "echo  'unclosed", True),
        ("content", "a\n  b", "a b", True),
        ("limit", 5, 5, True),
        ("limit", 5, "5", False),
    ],
)
def test_values_are_compared_by_what_they_mean(name, ours, theirs, is_equal):
    assert are_values_equal(name, ours, theirs) is is_equal


def test_what_the_session_named_exists():
    case = make_case(
        "A",
        messages=({"role": "user", "content": "Go on."},),
        calls=[{"name": "Read", "arguments": {"file_path": "lib/x.py"}}],
    )
    for path, found in (("lib/x.py", 1), ("lib/y.py", 0)):
        measures = outcome(case, completion(("Read", {"file_path": path}))).measures
        assert (measures["grounded_found"], measures["grounded_total"]) == (found, 1)


def test_a_path_that_only_the_schemas_know_does_not_exist():
    measures = outcome(CASE_A, completion(("Grep", {"pattern": "x", "path": "string"}))).measures
    assert (measures["grounded_found"], measures["grounded_total"]) == (0, 1)
    measures = outcome(CASE_A, "Its argument is called `file_path`.").measures
    assert (measures["grounded_found"], measures["grounded_total"]) == (1, 1)
