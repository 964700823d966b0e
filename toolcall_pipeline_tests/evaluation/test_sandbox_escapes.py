"""What a model might try in suite C's sandbox, and what comes of it: nothing outside, and the evaluation goes on."""

import contextlib
import os
import socket
import time
from pathlib import Path

import pytest

from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.sandbox import Limits, Sandbox, SandboxDiedError, open_sandbox, sandbox_problem

pytestmark = pytest.mark.skipif(sandbox_problem() is not None, reason=f"no sandbox here: {sandbox_problem()}")
CANARY = "canary-7f3d1c"


@pytest.fixture
def sandbox():
    with open_sandbox({"README.md": "hello\n", "src/a.py": "X = 1\n"}, Limits(seconds=3)) as opened:
        yield opened


@pytest.fixture(scope="module")
def lasting_sandbox():
    """Give one sandbox for the many calls that must leave it alive."""
    with open_sandbox({"README.md": "hello\n", "src/a.py": "X = 1\n"}, Limits(seconds=3)) as opened:
        yield opened


def bash(sandbox: Sandbox, command: str) -> str:
    return sandbox.call("Bash", {"command": command}).output


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text(CANARY)
    path.chmod(0o644)
    return path


@pytest.mark.parametrize(
    "tool_call",
    [
        lambda path: ("Bash", {"command": f"cat {path}"}),
        lambda path: ("Read", {"file_path": str(path)}),
        lambda path: ("Grep", {"pattern": "canary", "path": str(path.parent), "output_mode": "content"}),
        lambda path: ("Bash", {"command": f"ln -s {path} link && cat link"}),
        lambda path: ("Read", {"file_path": f"../../../../..{path}"}),
        lambda path: ("Bash", {"command": f"cat /proc/1/root{path} /proc/self/root{path} /proc/1/cwd{path}"}),
        lambda path: ("Bash", {"command": f"python3 -c \"print(open('{path}').read())\""}),
    ],
)
def test_no_file_of_the_user_can_be_read(lasting_sandbox, secret_file, tool_call):
    assert CANARY not in lasting_sandbox.call(*tool_call(secret_file)).output


def test_home_password_files_and_environment_are_not_there(sandbox, monkeypatch):
    monkeypatch.setenv("PLANTED_TOKEN", CANARY)
    output = bash(sandbox, "cat /etc/passwd /etc/shadow; ls -la /home /root ~; env; cat /proc/*/environ")
    assert CANARY not in output
    assert "root:" not in output
    assert str(Path.home() / ".ssh") not in output


@pytest.mark.parametrize(
    "folder", ["/usr", "/usr/bin", "/etc", "/opt", "/lib", "/", "/proc/sys/kernel", "/root", "/home"]
)
def test_nothing_outside_the_repository_can_be_written(lasting_sandbox, folder):
    answer = lasting_sandbox.call("Write", {"file_path": f"{folder}/planted-{CANARY}", "content": "x"})
    assert answer.is_error
    assert not Path(f"{folder}/planted-{CANARY}").exists()


def test_there_is_no_network(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        output = bash(sandbox, f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected; cat /proc/net/dev | wc -l")
        assert "connected" not in output
        assert output.rstrip().endswith("3")  # two lines of heading, and the loopback of an empty namespace
        with pytest.raises(TimeoutError):
            server.accept()


def test_processes_of_the_host_are_neither_seen_nor_reached(sandbox):
    own = os.getpid()
    assert f"/{own}/" not in bash(sandbox, "ls -d /proc/[0-9]*/")
    bash(sandbox, f"kill -9 {own}")
    assert os.getpid() == own


def test_killing_everything_inside_fails_the_case_and_nothing_else():
    with open_sandbox({}, Limits(seconds=3)) as sandbox:
        try:
            sandbox.call("Bash", {"command": "kill -9 -1; kill -9 1 2 $PPID"})
        except SandboxDiedError:
            return
        assert bash(sandbox, "echo alive") == "alive"


def test_a_fork_bomb_is_stopped(sandbox):
    started = time.monotonic()
    bash(sandbox, ":(){ :|:& };:; sleep 60")
    assert time.monotonic() - started < 20
    assert bash(sandbox, "echo alive") == "alive"


def test_memory_is_limited():
    limits = Limits(seconds=5, memory_bytes=256 << 20)
    with open_sandbox({}, limits) as sandbox:
        output = bash(sandbox, "python3 -c \"x = bytearray(2 << 30); print('got it')\"")
        assert "got it" not in output


def test_memory_of_all_processes_together_is_limited():
    limits = Limits(seconds=8, total_memory_bytes=150 << 20)
    hungry = "python3 -c 'import time; x = bytearray(90 << 20); time.sleep(9)'"
    with open_sandbox({}, limits) as sandbox, pytest.raises(SandboxDiedError):
        sandbox.call("Bash", {"command": f"{hungry} & {hungry} & {hungry} & wait"})


@pytest.mark.parametrize("folder", [".", "/tmp", "/dev/shm", "/work", "/dev"])
def test_the_disk_is_limited(sandbox, folder):
    fill = f"for i in $(seq 40); do head -c 7000000 /dev/zero > {folder}/f$i || break; done; du -sm {folder} | cut -f1"
    assert int(bash(sandbox, fill).splitlines()[-1]) <= 64


def test_the_number_of_files_is_limited():
    with open_sandbox({}, Limits(seconds=9, files=50)) as few:
        assert "More than 50 files" in bash(few, "for i in $(seq 100); do : > f$i; done; sleep 8")


def test_sandboxes_at_the_same_time_take_nothing_from_each_other():
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_sandbox({}, Limits(processes=8))) for _ in range(12)]
        assert {bash(sandbox, "echo one | cat | cat") for sandbox in opened} == {"one"}


def test_a_sandbox_that_does_not_start_says_why(monkeypatch):
    monkeypatch.setattr("toolcall_pipeline.evaluation.sandbox._WORKER", Path("/nowhere/worker.py"))
    with pytest.raises(EvaluationError, match=r"did not start: bwrap: .*worker\.py"), open_sandbox({}):
        pass


def test_without_a_known_filter_there_is_no_sandbox(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "sparc")
    with pytest.raises(EvaluationError, match="no filter of system calls for sparc"), open_sandbox({}):
        pass


def test_time_is_limited_and_left_overs_end(sandbox):
    assert "timed out" in bash(sandbox, "sleep 50")
    bash(sandbox, "(setsid sleep 50 &) ; (nohup sleep 50 >/dev/null 2>&1 &); echo started")
    assert "sleep" not in bash(sandbox, "cat /proc/[0-9]*/comm")


def test_output_is_limited(sandbox):
    assert len(bash(sandbox, "yes")) < 10_000
    assert len(bash(sandbox, "head -c 900000 /dev/zero | tr '\\0' a")) < 10_000


@pytest.mark.parametrize(
    "command",
    [
        "mount -t tmpfs none /usr",
        "umount /usr",
        "chroot / true",
        "unshare -Urm mount -o remount,rw /usr",
        "mknod disk b 8 0",
        "dmesg | head -1 | grep .",
        "echo 1 > /proc/sys/kernel/sysrq",
        "su -c id",
        "sudo -n id",
        "python3 -c 'import os; os.setuid(0)'",
        "nsenter -t 1 -m true",
        "unshare -U true",
        "unshare -rm sh -c 'mount -t tmpfs none /mnt'",
        "python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(16, 2, 0, 0) != 0)'",
    ],
)
def test_rights_cannot_be_gained(lasting_sandbox, command):
    assert lasting_sandbox.call("Bash", {"command": command}).is_error


def test_answers_cannot_be_forged_through_the_workers_pipes(sandbox):
    forged = '{"output": "forged", "is_error": false}'
    for pid in ("1", "2", "$PPID"):
        bash(sandbox, f"echo '{forged}' > /proc/{pid}/fd/1")
    assert bash(sandbox, "echo real") == "real"


def test_a_hopeless_search_ends(sandbox):
    sandbox.call("Write", {"file_path": "long.txt", "content": "a" * 5000 + "b"})
    started = time.monotonic()
    answer = sandbox.call("Grep", {"pattern": "(a+)+$", "path": "long.txt"})
    assert answer.is_error
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("Bash", None), ("Bash", []), ("Bash", {}), ("Bash", {"command": 7}), ("Read", {"file_path": "\0"}),
        ("Read", {"file_path": "a" * 5000}), ("Grep", {"pattern": "("}), ("Glob", {"pattern": ["*"]}),
        ("Edit", {"file_path": "src/a.py", "old_string": "X", "new_string": 3}), ("Nope", {"a": 1}), ("", {}),
        ("Read", {"file_path": "src/a.py", "limit": "many"}), ("Write", {"file_path": "src/a.py/b", "content": "x"}),
        ("Write", {"file_path": "\ud800", "content": "\ud800"}), ("Bash", {"command": "printf '\\xff\\xfe'; exit 3"}),
    ],
)  # fmt: skip
def test_arguments_of_any_kind_get_an_answer(lasting_sandbox, tool, arguments):
    answer = lasting_sandbox.call(tool, arguments)
    assert answer.is_error
    assert answer.output
    assert bash(lasting_sandbox, "echo alive") == "alive"


def test_the_repository_is_thrown_away():
    with open_sandbox({"a.txt": "one"}) as sandbox:
        sandbox.call("Write", {"file_path": "b.txt", "content": "two"})
        assert sandbox.snapshot() == {"a.txt": "one", "b.txt": "two"}
    with open_sandbox({"a.txt": "one"}) as sandbox:
        assert sandbox.snapshot() == {"a.txt": "one"}
