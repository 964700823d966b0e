"""Artifacts: made whole or not at all, found again, never overwritten, and damage is noticed."""

import json
import shutil
from pathlib import Path

import pytest

from toolcall_pipeline.artifacts import ArtifactStore, load_artifact, sha256_json, sha256_text, write_atomically
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


def test_what_a_broken_build_left_is_removed(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    for _ in range(2):
        with pytest.raises(RuntimeError), store.build("thing", "p", recipe_of_artifact=RECIPE) as build:
            assert list(build.directory.iterdir()) == []
            (build.directory / "checkpoint").write_text("x")
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


def test_a_file_that_was_added_is_no_part_of_what_was_judged(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    make(store)
    artifact = store.require("thing", "20260101T000000Z")
    (artifact.directory / "sub" / "model-00002.safetensors").write_text("more")
    with pytest.raises(ArtifactError, match=r"model-00002\.safetensors was added"):
        artifact.verify()


@pytest.mark.parametrize("edit", ["a file and its record", "the overrides", "the recipe"])
def test_an_edited_manifest_gives_itself_away(tmp_path: Path, edit: str) -> None:
    store = ArtifactStore(tmp_path, overridden_gates=("above:gate",))
    make(store)
    artifact = store.require("thing", "20260101T000000Z")
    path = artifact.directory / "manifest.json"
    manifest = json.loads(path.read_text())
    if edit == "a file and its record":
        artifact.path("sub/file.txt").write_text("hullo")
        manifest["files"]["sub/file.txt"]["sha256"] = sha256_text("hullo")
    elif edit == "the overrides":
        manifest["overridden_gates"] = []
    else:
        manifest["recipe_of_artifact"]["seed"] = 43
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"manifest\.json was edited"):
        store.require("thing", "20260101T000000Z").verify()


def test_what_is_made_over_an_override_is_another_thing_than_what_is_made_without(tmp_path: Path) -> None:
    clean, overridden = ArtifactStore(tmp_path), ArtifactStore(tmp_path, overridden_gates=("above:gate",))
    make(clean)
    assert overridden.find("thing", "20260101T000000Z", RECIPE) is None
    make(overridden)
    assert clean.require("thing", "20260101T000000Z").manifest.overridden_gates == ["above:gate"]
    found = clean.find("thing", "20260101T000000Z", RECIPE)
    assert found is not None
    assert found.manifest.overridden_gates == []


@pytest.mark.parametrize("target", ["../20260102T000000Z/{}", "/tmp", "", "{}/sub", "no such folder"])
def test_a_pointer_that_leads_elsewhere_is_refused(tmp_path: Path, target: str) -> None:
    store = ArtifactStore(tmp_path)
    make(store)
    artifact = store.require("thing", "20260101T000000Z")
    pointer = artifact.directory.parent / "current"
    pointer.write_text(target.format(artifact.directory.name))
    with pytest.raises(ArtifactError, match="current says"):
        store.current("thing", "20260101T000000Z")


@pytest.mark.parametrize("by", ["symlink", "copy"])
def test_another_partitions_artifact_is_not_taken_for_this_ones(tmp_path: Path, by: str) -> None:
    store = ArtifactStore(tmp_path)
    make(store)
    made = tmp_path / "thing" / "20260101T000000Z"
    other = tmp_path / "thing" / "20260102T000000Z"
    other.symlink_to(made) if by == "symlink" else shutil.copytree(made, other)
    with pytest.raises(ArtifactError, match="moved or copied here"):
        store.current("thing", "20260102T000000Z")


def test_what_was_made_from_other_bytes_than_those_in_use_is_stale(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)

    def build(asset: str, content: str, above: str = "") -> str:
        parents = {above: store.require(above, "p").sha256} if above else {}
        with store.build(asset, "p", recipe_of_artifact={"c": content, **parents}, parents=parents) as build:
            (build.directory / "file").write_text(content)
        return store.require(asset, "p").sha256

    build("a", "1")
    build("b", "1", "a")
    build("c", "1", "b")
    assert store.stale_parent(store.require("c", "p")) is None
    build("a", "2")
    assert store.stale_parent(store.require("c", "p")) == "a"
    store.find("a", "p", {"c": "1"})
    assert store.stale_parent(store.require("c", "p")) is None


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
