"""Runs inside the sandbox, standard library only: holds the throw-away repository and carries out tool calls.

Speaks JSON lines on standard input and output. `sandbox.py` starts it with `python -I -S`; nothing of the package can be
imported here. The first line is {"files", "limits", "user"}; every further one {"tool", "arguments"} or {"snapshot"}.
"""

import ctypes
import fnmatch
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

ROOT = "/work/repo"
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38
SNAPSHOT_BYTES = 4_000_000

Arguments = dict[str, Any]
Limits = dict[str, int]


class ToolError(Exception):
    """What a tool answers when it cannot do what was asked."""


def main() -> None:
    """Lay out the repository, drop rights, then answer calls until standard input ends."""
    setup = json.loads(sys.stdin.readline())
    os.umask(0o022)
    drop_rights(setup["limits"], setup.get("user"))
    for path, content in setup["files"].items():
        full = os.path.join(ROOT, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as stream:
            stream.write(content)
    os.chdir(ROOT)
    answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        answer({"files": snapshot()} if request.get("snapshot") else call_tool(request, setup["limits"]))


def drop_rights(limits: Limits, user: int | None) -> None:
    """Give up every right that is left, and bound what this process and its children may use."""
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    libc = ctypes.CDLL(None, use_errno=True)
    # Children run as the same user: without this they could write into our pipes through /proc.
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for kind, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def answer(value: dict[str, Any]) -> None:
    """Write one line to the host."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def call_tool(request: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Carry out one call; a refusal is an answer too."""
    arguments = request.get("arguments")
    tool = TOOLS.get(str(request.get("tool")))
    signal.signal(signal.SIGALRM, took_too_long)
    # Bash watches its own time, and says what the command wrote until then.
    signal.alarm(0 if tool is run_bash else limits["seconds"])
    try:
        if tool is None:
            raise ToolError("No such tool available: {}".format(request.get("tool")))
        if not isinstance(arguments, dict):
            raise ToolError("InputValidationError: arguments must be an object")
        output = tool(arguments, limits)
        return {"output": shorten(output, limits["output_characters"]), "is_error": False}
    except ToolError as error:
        return {"output": shorten(str(error), limits["output_characters"]), "is_error": True}
    except (OSError, ValueError, MemoryError) as error:
        return {"output": f"{type(error).__name__}: {str(error)[:500]}", "is_error": True}
    finally:
        signal.alarm(0)


def shorten(text: str, limit: int) -> str:
    """Cut long output in the middle, and say so."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= limit:
        return text
    half = limit // 2
    return text[:half] + f"\n... [{len(text) - 2 * half} characters left out] ...\n" + text[-half:]


def text_argument(arguments: Arguments, name: str) -> str:
    """Return a required text argument."""
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        raise ToolError(f"InputValidationError: The required parameter `{name}` is missing")
    return value


def number_argument(arguments: Arguments, name: str, default: int) -> int:
    """Return an optional whole number that is not negative."""
    value = arguments.get(name)
    if value is None:
        return default
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ToolError(f"InputValidationError: The parameter `{name}` must be a whole number")
    return value


def resolve(path: str) -> str:
    """Return a path below the working folder, or as it is where absolute."""
    return os.path.normpath(os.path.join(ROOT, path))


def read_text(path: str) -> str:
    """Return a file's text."""
    full = resolve(path)
    if os.path.isdir(full):
        raise ToolError(f"EISDIR: illegal operation on a directory, read '{path}'")
    if not os.path.isfile(full):
        raise ToolError(f"File does not exist: {path}")
    with open(full, encoding="utf-8", errors="replace") as stream:
        return stream.read(SNAPSHOT_BYTES)


def write_text(path: str, text: str) -> None:
    """Replace a file's text."""
    full = resolve(path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "w", encoding="utf-8") as stream:
        stream.write(text)


def run_read(arguments: Arguments, limits: Limits) -> str:
    """Read: numbered lines of a file."""
    lines = read_text(text_argument(arguments, "file_path")).splitlines()
    start = max(1, number_argument(arguments, "offset", 1))
    count = number_argument(arguments, "limit", 2000)
    shown = lines[start - 1 : start - 1 + count]
    if not shown:
        return "(the file is empty or shorter than the offset)"
    return "\n".join(f"{start + index:6d}\t{line}" for index, line in enumerate(shown))


def run_write(arguments: Arguments, limits: Limits) -> str:
    """Write: a whole file."""
    path = text_argument(arguments, "file_path")
    content = arguments.get("content")
    if not isinstance(content, str):
        raise ToolError("InputValidationError: The required parameter `content` is missing")
    write_text(path, content)
    return f"File written successfully at: {path}"


def run_edit(arguments: Arguments, limits: Limits) -> str:
    """Edit: one exact replacement, or all of them."""
    path = text_argument(arguments, "file_path")
    old, new = text_argument(arguments, "old_string"), arguments.get("new_string")
    if not isinstance(new, str):
        raise ToolError("InputValidationError: The required parameter `new_string` is missing")
    text = read_text(path)
    count = text.count(old)
    if count == 0:
        raise ToolError("String to replace not found in file.")
    if count > 1 and not arguments.get("replace_all"):
        raise ToolError(f"Found {count} matches of the string to replace, but replace_all is false.")
    write_text(path, text.replace(old, new))
    return f"The file {path} has been updated."


def walk(base: str) -> Iterator[str]:
    """Yield files below a folder, sorted, relative to the working folder; never through links."""
    for folder, folders, names in os.walk(base):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(names):
            yield os.path.join(folder, name)


def relative(path: str) -> str:
    """Return a path as the model is shown it."""
    return os.path.relpath(path, ROOT) if path.startswith(ROOT) else path


def matches(path: str, pattern: str) -> bool:
    """Return whether a relative path fits a glob; `**/` also stands for no folder at all."""
    candidates = {pattern, pattern.replace("**/", "")}
    return any(fnmatch.fnmatch(path, one) or fnmatch.fnmatch(os.path.basename(path), one) for one in candidates)


def run_glob(arguments: Arguments, limits: Limits) -> str:
    """Glob: files by name."""
    pattern = text_argument(arguments, "pattern")
    base = resolve(arguments.get("path") or ".")
    prefix = base.rstrip("/") + "/"
    pattern = pattern[len(prefix) :] if pattern.startswith(prefix) else pattern.removeprefix("./")
    found = [relative(path) for path in walk(base) if matches(os.path.relpath(path, base), pattern)]
    return "\n".join(found[:200]) or "No files found"


def run_grep(arguments: Arguments, limits: Limits) -> str:
    """Grep: lines that match a regular expression."""
    pattern = text_argument(arguments, "pattern")
    base = resolve(arguments.get("path") or ".")
    flags = re.IGNORECASE if arguments.get("-i") else 0
    try:
        expression = re.compile(pattern, flags)
    except re.error as error:
        raise ToolError(f"regex parse error: {error}") from error
    if not os.path.exists(base):
        raise ToolError("Path does not exist: {}".format(arguments.get("path")))
    mode = arguments.get("output_mode") or "files_with_matches"
    kind = arguments.get("type")
    glob = arguments.get("glob") or (f"*.{kind}" if kind else None)
    hits = list(grep_files([base] if os.path.isfile(base) else walk(base), expression, glob))
    if not hits:
        return "No matches found"
    if mode == "content":
        return "\n".join(f"{path}:{number}:{line}" for path, number, line in hits[:200])
    counts: dict[str, int] = {}
    for path, _, _ in hits:
        counts[path] = counts.get(path, 0) + 1
    if mode == "count":
        return "\n".join(f"{path}:{count}" for path, count in counts.items())
    return "\n".join(counts)


def took_too_long(number: int, frame: Any) -> None:
    """End a tool that takes too long, such as a search whose expression backtracks for ever."""
    raise ToolError("The tool took too long")


def grep_files(paths: Iterable[str], expression: re.Pattern[str], glob: str | None) -> Iterator[tuple[str, int, str]]:
    """Yield (path, line number, line) of each match."""
    for path in paths:
        if glob and not matches(relative(path), glob):
            continue
        try:
            with open(path, encoding="utf-8") as stream:
                for number, line in enumerate(stream, 1):
                    if expression.search(line):
                        yield relative(path), number, line.rstrip("\n")[:500]
        except (OSError, UnicodeDecodeError):
            continue


def run_bash(arguments: Arguments, limits: Limits) -> str:
    """Bash: one command in a shell of its own."""
    command = text_argument(arguments, "command")
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        ["/bin/bash", "--noprofile", "--norc", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=write_end,
        stderr=write_end,
        start_new_session=True,
        cwd=ROOT,
    )
    os.close(write_end)
    output, reason = collect(read_end, process, limits)
    os.close(read_end)
    kill_all()
    code = process.wait()
    text = output.decode("utf-8", "replace").rstrip("\n")
    if reason:
        raise ToolError(f"{text}\n{reason}")
    if code:
        raise ToolError(f"Exit code {code}\n{text}")
    return text or "(no output)"


def collect(read_end: int, process: subprocess.Popen[bytes], limits: Limits) -> tuple[bytearray, str | None]:
    """Read a command's output until it ends, floods, or takes too long."""
    import select
    import time

    deadline = time.monotonic() + limits["seconds"]
    output = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return output, timed_out(limits)
        if count_files() > limits["files"]:
            return output, f"More than {limits['files']} files; the command was stopped"
        ready, _, _ = select.select([read_end], [], [], min(left, 0.1))
        if ready:
            block = os.read(read_end, 65536)
            if not block:
                # The pipe closes a moment before the process is gone.
                return output, None if has_ended(process, deadline) else timed_out(limits)
            output += block
            if len(output) > limits["output_bytes"]:
                return output, f"Output exceeded {limits['output_bytes']} bytes; the command was stopped"
        elif process.poll() is not None:
            return output, None


def count_files() -> int:
    """Return how many files there are: their names take memory that no limit on bytes counts."""
    systems = [os.statvfs(folder) for folder in (ROOT, "/tmp", "/dev/shm")]
    return sum(system.f_files - system.f_ffree for system in systems)


def timed_out(limits: Limits) -> str:
    """Return what a command that takes too long answers."""
    return f"Command timed out after {limits['seconds']} seconds"


def has_ended(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Return whether a process ends before a deadline."""
    import time

    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def kill_all() -> None:
    """End whatever a command left behind: everything in this process namespace but the first process and us."""
    own = {1, os.getpid()}
    for _ in range(20):
        others = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in own]
        alive = False
        for pid in others:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
                alive = True
            except (ProcessLookupError, PermissionError, ChildProcessError):
                continue
        if not alive:
            return


def snapshot() -> dict[str, str]:
    """Return the repository's text files, relative path to content, links and the odd left out."""
    files: dict[str, str] = {}
    total = 0
    for path in walk(ROOT):
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        with open(path, "rb") as stream:
            data = stream.read(SNAPSHOT_BYTES + 1)
        if total + len(data) > SNAPSHOT_BYTES or len(files) >= 2000:
            continue
        total += len(data)
        files[relative(path)] = data.decode("utf-8", "replace")
    return files


TOOLS: dict[str, Callable[[Arguments, Limits], str]] = {
    "Read": run_read,
    "Write": run_write,
    "Edit": run_edit,
    "Glob": run_glob,
    "Grep": run_grep,
    "Bash": run_bash,
}

if __name__ == "__main__":
    main()
