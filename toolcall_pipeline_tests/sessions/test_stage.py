"""Freezing: every file and line accounted for, a night costs its new bytes, and nothing of the text is kept."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.errors import ArtifactError, MissingInputError, PartitionKeyError, UsageError
from toolcall_pipeline.gates.jsonl_sessions import GATES
from toolcall_pipeline.gates.profiles import rule_for
from toolcall_pipeline.gates.verdict import GateContext, GateResult, Verdict
from toolcall_pipeline.presets import PRESETS
from toolcall_pipeline.sessions import stage
from toolcall_pipeline.sessions.lock import FileState, LockedFile, file_key, load_lock, read_locked_file
from toolcall_pipeline.sessions.stage import EVENTS_NAME, NODES_NAME, QUARANTINE_NAME, freeze_sessions
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline_tests.sessions.lines import call, result, text, user, write

TOOL = "toolu_01R62tkBs9tw5X76JmpWXYbc"
CANARY = "canary-9f3b-never-in-an-artifact"
HALF = b'{"type":"user","uuid":"u9","message":{"con'


class Nights:
    """Freezes one folder night after night, carrying the ledger as the store does."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.folder = folder
        self.home = home
        self.ledger: dict[str, FileState] = {}
        self.night = 0

    def context(self, partition: str) -> StageContext:
        return StageContext(partition, PRESETS["smoke"], Settings(home=self.home), engine=None)  # type: ignore[arg-type]

    def freeze(self) -> Artifact:
        self.night += 1
        context = self.context(f"202611{self.night:02d}T020000Z-nightly")
        artifact = freeze_sessions(context, sessions_dir=self.folder, previous=self.ledger)
        self.ledger |= {file.file_key: file.next_state for file in load_lock(artifact).files if file.next_state}
        return artifact

    def file(self, artifact: Artifact, path: str = "a.jsonl") -> LockedFile:
        return next(file for file in load_lock(artifact).files if file.path == path)

    def judge(self, artifact: Artifact) -> GateResult:
        context = self.context("20261101T020000Z-nightly")
        rule = rule_for(context.configuration, "jsonl_sessions", "files_accounted")
        return GATES[0].judge(
            GateContext(artifact, context.partition, context.artifacts, None, context.configuration, rule)
        )  # type: ignore[arg-type]


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    (tmp_path / "sessions").mkdir()
    return Nights(tmp_path / "home", tmp_path / "sessions")


def conversation(first: int = 1) -> list[dict[str, Any]]:
    parent = f"a{first - 1}" if first > 1 else None
    tool = f"{TOOL[:-2]}{first:02d}"
    return [
        user(f"u{first}", parent, f"{CANARY} run it"),
        call(f"c{first}", f"u{first}", tool, f"m{first}", tool_input={"command": f"echo {CANARY}"}),
        result(f"r{first}", f"c{first}", tool, f"{CANARY} done"),
        text(f"a{first}", f"r{first}", f"Done {CANARY}", f"n{first}"),
    ]


def test_the_first_night_reads_everything_and_the_next_one_nothing(nights: Nights) -> None:
    write(nights.folder / "a.jsonl", conversation())
    write(nights.folder / "deep" / "b.jsonl", [user("x1", None, "Hi")])
    first, second = nights.freeze(), nights.freeze()
    assert first.manifest.metadata["lines"] == 5
    assert first.manifest.metadata["prompts"] == 2
    assert second.manifest.metadata["files_unchanged"] == 2
    assert second.manifest.metadata["new_bytes"] == 0
    assert [len(list(read_locked_file(load_lock(second), file))) for file in load_lock(second).files] == [0, 0]
    assert nights.judge(first).verdict is nights.judge(second).verdict is Verdict.PASS


def test_an_unchanged_file_costs_a_stat(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    write(nights.folder / "a.jsonl", conversation())
    nights.freeze()
    opened: list[str] = []
    real_open: Callable[..., Any] = Path.open

    def spy(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(self.name)
        return real_open(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", spy)
    nights.freeze()
    assert "a.jsonl" not in opened


def test_a_grown_file_costs_its_new_bytes(nights: Nights) -> None:
    path = write(nights.folder / "a.jsonl", conversation())
    size = path.stat().st_size
    nights.freeze()
    with path.open("a") as stream:
        stream.writelines(json.dumps(item) + "\n" for item in conversation(2))
    second = nights.freeze()
    file = nights.file(second)
    assert (file.status, file.start_byte, file.start_line, file.end_byte) == ("grown", size, 5, path.stat().st_size)
    assert [getattr(record, "event_id", None) for record in read_locked_file(load_lock(second), file)][1] == "u2"
    assert pq.read_table(second.path(EVENTS_NAME)).column("line").to_pylist() == [5, 6, 7, 8]
    assert file.external_parent_ids == ["a1"]


def test_a_file_that_was_touched_but_says_the_same_is_unchanged(nights: Nights) -> None:
    path = write(nights.folder / "a.jsonl", conversation())
    nights.freeze()
    os.utime(path, ns=(1, 1))
    assert nights.file(nights.freeze()).status == "unchanged"


@pytest.mark.parametrize("grown", [True, False])
def test_a_file_written_anew_is_noticed_and_read_from_its_start(nights: Nights, grown: bool) -> None:
    path = write(nights.folder / "a.jsonl", conversation())
    nights.freeze()
    write(path, [*conversation(7), *(conversation(8) if grown else [])])
    file = nights.file(nights.freeze())
    assert (file.status, file.start_byte, file.account.lines) == ("rewritten", 0, 8 if grown else 4)


def test_a_half_written_last_line_waits_and_is_read_when_it_is_whole(nights: Nights) -> None:
    path = write(nights.folder / "a.jsonl", conversation())
    with path.open("ab") as stream:
        stream.write(HALF)
    first = nights.freeze()
    assert first.manifest.metadata["pending_lines"] == 1
    assert nights.file(first).next_state.pending_bytes == len(HALF)  # type: ignore[union-attr]
    with path.open("ab") as stream:
        stream.write(b'tent":"whole"}}\n')
    second = nights.freeze()
    assert (second.manifest.metadata["prompts"], second.manifest.metadata["pending_lines"]) == (1, 0)
    assert nights.judge(second).verdict is Verdict.PASS


def test_a_half_written_line_that_stays_goes_into_quarantine_once(nights: Nights) -> None:
    path = write(nights.folder / "a.jsonl", conversation())
    with path.open("ab") as stream:
        stream.write(HALF)
    nights.freeze()
    second, third = nights.freeze(), nights.freeze()
    entries = [json.loads(line) for line in second.path(QUARANTINE_NAME).read_text().splitlines()]
    assert [(entry["file"], entry["line"], entry["length_bytes"]) for entry in entries] == [("a.jsonl", 5, len(HALF))]
    assert third.path(QUARANTINE_NAME).read_text() == ""
    assert nights.judge(second).verdict is nights.judge(third).verdict is Verdict.PASS


def test_a_partition_is_frozen_once_whatever_becomes_of_the_files(nights: Nights) -> None:
    path = write(nights.folder / "a.jsonl", conversation())
    context = nights.context("20261101T020000Z-nightly")
    first = freeze_sessions(context, sessions_dir=nights.folder, previous={})
    write(path, conversation(2))
    assert freeze_sessions(context, sessions_dir=nights.folder, previous={}).sha256 == first.sha256
    with pytest.raises(UsageError, match="frozen from"):
        freeze_sessions(context, sessions_dir=nights.home, previous={})


def test_bytes_that_changed_after_the_freeze_are_refused(nights: Nights) -> None:
    path = write(nights.folder / "a.jsonl", conversation())
    artifact = nights.freeze()
    lock = load_lock(artifact)
    path.write_text(path.read_text().replace("run it", "run IT"))
    with pytest.raises(ArtifactError, match="changed between byte 0"):
        list(read_locked_file(lock, lock.files[0]))
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot be read any more"):
        list(read_locked_file(lock, lock.files[0]))


def test_files_of_other_programs_and_broken_ones_are_counted_and_stop_nothing(nights: Nights) -> None:
    write(nights.folder / "a.jsonl", conversation())
    write(nights.folder / "log.jsonl", [{"level": "info", "msg": CANARY}] * 3)
    (nights.folder / "empty.jsonl").touch()
    (nights.folder / "binary.jsonl").write_bytes(bytes(range(256)) * 40)
    (nights.folder / "gone.jsonl").symlink_to(nights.folder / "nowhere")
    (nights.folder / "folder.jsonl").mkdir()
    write(nights.folder / "half.jsonl", [*conversation(3), {}])
    with (nights.folder / "half.jsonl").open("ab") as stream:
        stream.write(b"{not json}\n\n[1]\n")
    artifact = nights.freeze()
    metadata = artifact.manifest.metadata
    assert metadata["files"] == 5
    assert metadata["files_other_format"] == 3
    assert (metadata["malformed_lines"], metadata["blank_lines"]) == (2, 1)
    verdict = nights.judge(artifact)
    assert verdict.verdict is Verdict.PASS
    assert sum(reason["count"] for reason in verdict.details["quarantine_reasons"]) == 2


def test_a_file_that_cannot_be_read_is_in_quarantine_with_its_reason(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(nights.folder / "a.jsonl", conversation())

    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("toolcall_pipeline.sessions.freezing.sniff_format", refuse)
    artifact = nights.freeze()
    assert nights.file(artifact).problem == "PermissionError: Permission denied"
    assert nights.judge(artifact).verdict is Verdict.PASS
    monkeypatch.undo()
    assert nights.file(nights.freeze()).status == "new"


def test_a_folder_that_cannot_be_listed_is_in_quarantine_and_stops_nothing(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(nights.folder / "a.jsonl", conversation())
    closed = nights.folder / "closed" / "deep"
    closed.mkdir(parents=True)
    write(closed / "b.jsonl", conversation())
    scandir = os.scandir

    def refuse(folder: Any) -> Any:
        if str(folder) == str(closed):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    artifact = nights.freeze()
    assert "cannot be listed" in str(nights.file(artifact, "closed/deep").problem)
    assert artifact.manifest.metadata["files_quarantined"] == 1
    assert artifact.manifest.metadata["prompts"] == 1
    assert nights.judge(artifact).verdict is Verdict.PASS
    monkeypatch.undo()
    assert nights.file(nights.freeze(), "closed/deep/b.jsonl").status == "new"


def test_a_file_whose_name_is_not_utf8_is_in_quarantine_and_stops_nothing(nights: Nights) -> None:
    write(nights.folder / "a.jsonl", conversation())
    (nights.folder / "b\udcff.jsonl").write_bytes((nights.folder / "a.jsonl").read_bytes())
    artifact = nights.freeze()
    assert nights.file(artifact, "b\\udcff.jsonl").problem == "OSError: its name is not UTF-8; rename the file"
    assert artifact.manifest.metadata["prompts"] == 1
    assert nights.judge(artifact).verdict is Verdict.PASS


def test_nothing_of_the_text_is_in_the_artifact(nights: Nights) -> None:
    write(
        nights.folder / "a.jsonl",
        [*conversation(), {"type": "queue-operation", "operation": "enqueue", "content": CANARY}],
    )
    with (nights.folder / "a.jsonl").open("ab") as stream:
        stream.write(f'{{"{CANARY}\n'.encode())
    artifact = nights.freeze()
    names = [EVENTS_NAME, NODES_NAME, "lock.jsonl", QUARANTINE_NAME, "manifest.json"]
    for name in names:
        assert CANARY.encode() not in (artifact.directory / name).read_bytes()
    for name in (EVENTS_NAME, NODES_NAME):
        assert CANARY not in str(pq.read_table(artifact.path(name)).to_pylist())


def test_reading_with_several_processes_gives_the_same_bytes(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        write(nights.folder / f"{number}.jsonl", conversation(number + 1))
    alone = nights.freeze()
    monkeypatch.setattr(stage, "_POOL_BYTES", 1)
    monkeypatch.setattr(stage.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    nights.ledger.clear()
    assert nights.freeze().sha256 == alone.sha256


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        ("lock.jsonl", ('"event_lines":4', '"event_lines":3'), "lines counted and lines classified differ"),
        ("lock.jsonl", ('"prompts":1', '"prompts":2'), "events read and events indexed differ"),
        ("lock.jsonl", ('"malformed_parts":0', '"malformed_parts":1'), "malformed parts and quarantine entries differ"),
    ],
)
def test_the_gate_holds_a_line_that_was_lost(nights: Nights, file: str, change: tuple[str, str], problem: str) -> None:
    write(nights.folder / "a.jsonl", conversation())
    artifact = nights.freeze()
    path = artifact.path(file)
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    verdict = nights.judge(artifact)
    assert verdict.verdict is Verdict.FAIL
    assert verdict.details["unaccounted"][0]["problem"] == problem


def test_without_a_folder_the_sample_sessions_are_taken_and_marked(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "home", tmp_path)
    artifact = freeze_sessions(nights.context("20261101T020000Z"), sessions_dir=None, previous={})
    lock = load_lock(artifact)
    assert lock.is_sample
    assert artifact.manifest.metadata["files_quarantined"] == 0
    assert nights.judge(artifact).verdict is Verdict.PASS


def test_a_missing_folder_and_a_wrong_partition_are_refused_with_what_to_do(nights: Nights) -> None:
    with pytest.raises(MissingInputError, match="Give an existing folder"):
        freeze_sessions(nights.context("20261101T020000Z"), sessions_dir=nights.folder / "no", previous={})
    with pytest.raises(PartitionKeyError, match="Expected"):
        freeze_sessions(nights.context("tonight"), sessions_dir=nights.folder, previous={})


def test_a_name_with_any_character_of_unicode_is_one_line_of_the_lock(nights: Nights) -> None:
    name = "a\u2028b\x85c.jsonl"
    write(nights.folder / name, conversation())
    assert nights.file(nights.freeze(), name).account.event_lines == 4


def test_files_that_are_as_they_were_are_nothing_to_read_whoever_wrote_them(nights: Nights) -> None:
    write(nights.folder / "a.jsonl", conversation())
    (nights.folder / "other.jsonl").write_text('{"level": "info"}\n' * 9)
    nights.freeze()
    paths = ["a.jsonl", "other.jsonl"]
    states = [nights.ledger[file_key(nights.folder, path)] for path in paths]
    assert stage._new_bytes(nights.folder, paths, states) == 0
    with (nights.folder / "other.jsonl").open("a") as stream:
        stream.write('{"level": "error"}\n')
    assert stage._new_bytes(nights.folder, paths, states) == (nights.folder / "other.jsonl").stat().st_size


def test_an_empty_folder_is_a_night_with_nothing_new(nights: Nights) -> None:
    artifact = nights.freeze()
    assert artifact.manifest.metadata["files"] == 0
    assert nights.judge(artifact).verdict is Verdict.PASS
