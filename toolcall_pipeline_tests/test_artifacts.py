"""Artifacts: made whole or not at all, found again, never overwritten, and damage is noticed."""

from pathlib import Path

import pytest

from toolcall_pipeline.artifacts import ArtifactStore, load_artifact, sha256_json, write_atomically
from toolcall_pipeline.errors import ArtifactError, MissingInputError

RECIPE = {"seed": 42, "parents": {"above": "0" * 64}}


def make(store: ArtifactStore, content: str = "hello", recipe: dict[str, object] = RECIPE) -> None:
    with store.build("thing", "20260101T000000Z", recipe_of_artifact=recipe) as build:
        (build.directory / "sub").mkdir()
        (build.directory / "sub" / "file.txt").write_text(content)
        build.metadata["rows_count"] = 1


def test_a_finished_artifact_is_current_and_verifies(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    make(store)
    artifact = store.require("thing", "20260101T000000Z")
    artifact.verify()
    assert artifact.path("sub/file.txt").read_text() == "hello"
    assert artifact.manifest.metadata == {"rows_count": 1}
    assert artifact.manifest.fingerprint == sha256_json(RECIPE)


def test_an_exception_leaves_nothing_that_counts(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(RuntimeError), store.build("thing", "p", recipe_of_artifact=RECIPE) as build:
        (build.directory / "half").write_text("x")
        raise RuntimeError
    assert store.current("thing", "p") is None
    assert store.find("thing", "p", RECIPE) is None


def test_what_a_broken_build_left_is_removed_unless_it_is_resumed(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    for resume, survives in ((True, True), (False, False)):
        with pytest.raises(RuntimeError), store.build("thing", "p", recipe_of_artifact=RECIPE, resume=True) as build:
            (build.directory / "checkpoint").write_text("x")
            raise RuntimeError
        with pytest.raises(RuntimeError), store.build("thing", "p", recipe_of_artifact=RECIPE, resume=resume) as build:
            assert (build.directory / "checkpoint").exists() is survives
            raise RuntimeError


def test_the_same_recipe_is_found_and_never_made_twice(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    make(store)
    with pytest.raises(ArtifactError, match="nothing is overwritten"):
        make(store, "other")
    assert store.find("thing", "20260101T000000Z", RECIPE) is not None


def test_going_back_to_an_earlier_recipe_makes_it_current_again(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    make(store)
    first = store.require("thing", "20260101T000000Z").sha256
    make(store, "other", {"seed": 43})
    assert store.require("thing", "20260101T000000Z").sha256 != first
    store.find("thing", "20260101T000000Z", RECIPE)
    assert store.require("thing", "20260101T000000Z").sha256 == first


def test_the_hash_covers_names_and_bytes_but_not_times(tmp_path: Path) -> None:
    for folder, content in (("a", "hello"), ("b", "hello"), ("c", "hullo")):
        make(ArtifactStore(tmp_path / folder), content)
    a, b, c = (ArtifactStore(tmp_path / name).require("thing", "20260101T000000Z").sha256 for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_damage_names_the_file_and_what_was_expected(tmp_path: Path, damage: str) -> None:
    store = ArtifactStore(tmp_path)
    make(store)
    artifact = store.require("thing", "20260101T000000Z")
    path = artifact.path("sub/file.txt")
    if damage == "missing":
        path.unlink()
    else:
        path.write_text("hullo" if damage == "changed" else "he")
    with pytest.raises(ArtifactError, match=r"file\.txt"):
        artifact.verify()


def test_what_was_never_made_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="Materialise thing first"):
        ArtifactStore(tmp_path).require("thing", "p")


def test_a_torn_manifest_is_an_error_not_an_artifact(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    make(store)
    directory = store.require("thing", "20260101T000000Z").directory
    (directory / "manifest.json").write_text('{"asset": "thing"')
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        load_artifact(directory)


def test_an_atomic_write_leaves_no_temporary_file_when_it_fails(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.mkdir()
    with pytest.raises(OSError):
        write_atomically(target, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
