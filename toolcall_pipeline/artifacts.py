"""Artifacts on disk: where each asset leaves its files, and the manifest beside them.

An artifact is a folder `<home>/artifacts/<asset>/<partition>/<fingerprint>/` whose `manifest.json` was written last.
A folder without a manifest does not exist as far as anyone is concerned. The fingerprint is the hash of everything
that decides the content (parents, configuration, seeds, code versions), so making the same thing again finds it, and
making another thing never overwrites. `<partition>/current` names the fingerprint in use. What was made over an overridden gate
is another thing than what was made without: the override is part of both hashes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from toolcall_pipeline.errors import ArtifactError, MissingInputError

MANIFEST_NAME = "manifest.json"
_CURRENT_NAME = "current"
_FOLDER_NAME_LENGTH = 16
_FOLDER_NAME = re.compile(r"[0-9a-f]{16}")
_READ_BYTES = 1 << 20


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, the form every hash in this project is taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    return sha256_text(canonical_json(value))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or all of the new one, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class FileRecord(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What an artifact is, what it was made from, and how.

    Attributes:
        asset: Asset name, such as `v2_chat_dataset`.
        partition: The `backfill_run_id`.
        fingerprint: SHA-256 of `recipe_of_artifact`; names the folder.
        recipe_of_artifact: Everything that decides the content; kept so that two artifacts can be compared field by field.
        parents: Asset name to `artifact_sha256` of each artifact this one was made from.
        files: Relative POSIX path to size and SHA-256, without the manifest.
        artifact_sha256: SHA-256 over the sorted `path NUL sha256 LF` lines of `files`, and of `overridden_gates` where there
            are any; what gate verdicts are about.
        seeds: Name to seed.
        metadata: Counts and figures with snake_case names and units; shown in the UI and by `status --json`.
        overridden_gates: Gates that were overridden anywhere above; such an artifact never ships.
        created_at, seconds, versions, hardware: Provenance, outside every hash.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    asset: str
    partition: str
    fingerprint: str
    recipe_of_artifact: dict[str, Any]
    parents: dict[str, str] = Field(default_factory=dict)
    files: dict[str, FileRecord] = Field(default_factory=dict)
    artifact_sha256: str
    seeds: dict[str, int] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    overridden_gates: list[str] = Field(default_factory=list)
    created_at: datetime
    seconds: float
    versions: dict[str, str] = Field(default_factory=dict)
    hardware: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder and its manifest."""

    directory: Path
    manifest: Manifest

    @property
    def sha256(self) -> str:
        """Return the hash that gate verdicts are stored under."""
        return self.manifest.artifact_sha256

    def path(self, name: str) -> Path:
        """Return the path of one of the artifact's files.

        Raises:
            MissingInputError: The manifest names no such file, or it is gone from disk.
        """
        path = self.directory / name
        if name not in self.manifest.files or not path.is_file():
            raise MissingInputError(
                f"Artifact {self.manifest.asset} of {self.manifest.partition} has no file {name!r} in {self.directory}. "
                f"Its manifest lists {sorted(self.manifest.files)}. Materialise the asset again."
            )
        return path

    def verify(self) -> None:
        """Compare the folder with the manifest, and the manifest with its own hashes.

        Raises:
            ArtifactError: A file is missing, cut, changed or was added, or the manifest was edited; the message names it
                with what was expected and found.
        """
        manifest = self.manifest
        again = f"Delete {self.directory} and materialise {manifest.asset} again."
        for name, record in manifest.files.items():
            path = self.directory / name
            if not path.is_file():
                raise ArtifactError(f"{path} is missing. {again}")
            size = path.stat().st_size
            found = sha256_file(path) if size == record.bytes else f"{size} bytes"
            if found != record.sha256:
                raise ArtifactError(
                    f"{path} changed since it was made: expected {record.bytes} bytes with SHA-256 {record.sha256}, "
                    f"found {found}. {again}"
                )
        added = sorted(_file_names(self.directory) - set(manifest.files))
        if added:
            raise ArtifactError(f"{self.directory / added[0]} was added since {manifest.asset} was made. {again}")
        hashes = {
            "artifact_sha256": (manifest.artifact_sha256, _tree_sha256(manifest.files, manifest.overridden_gates)),
            "fingerprint": (manifest.fingerprint, _fingerprint(manifest.recipe_of_artifact, manifest.overridden_gates)),
        }
        for name, (written, computed) in hashes.items():
            if written != computed:
                raise ArtifactError(
                    f"{self.directory / MANIFEST_NAME} was edited: its {name} is {written}, what it lists gives {computed}. "
                    f"{again}"
                )


@dataclass
class ArtifactBuild:
    """An artifact being made: write files below `directory`, set counts in `metadata`."""

    directory: Path
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ArtifactStore:
    """The artifacts below one folder.

    Attributes:
        root: The folder.
        overridden_gates: Gates that were overridden above what is made now; recorded in it, and part of its hashes.
    """

    root: Path
    overridden_gates: tuple[str, ...] = ()

    def current(self, asset: str, partition: str) -> Artifact | None:
        """Return the artifact in use for an asset and partition, or None where there is none.

        Raises:
            ArtifactError: The pointer or the manifest is damaged, or leads to an artifact of another place.
        """
        pointer = self.root / asset / partition / _CURRENT_NAME
        if not pointer.is_file():
            return None
        name = pointer.read_text(encoding="utf-8", errors="replace").strip()
        if _FOLDER_NAME.fullmatch(name) is None:
            raise ArtifactError(
                f"{pointer} says {name[:80]!r}; expected the name of one of the folders beside it. Put it back, or delete "
                f"{pointer.parent} and materialise {asset} again."
            )
        return self._load(asset, partition, name)

    def stale_parent(self, artifact: Artifact) -> str | None:
        """Return an asset whose artifact in use is another than the one this was made from, or None.

        Looks up through everything the artifact was made from. Other partitions' artifacts do not count: what a partition
        takes from them is fixed when it is first built.
        """
        for name, sha256 in artifact.manifest.parents.items():
            asset, _, partition = name.partition("/")
            if partition not in ("", artifact.manifest.partition):
                continue
            parent = self.current(asset, artifact.manifest.partition)
            if parent is None or parent.sha256 != sha256:
                return asset
            above = self.stale_parent(parent)
            if above is not None:
                return above
        return None

    def partitions(self, asset: str) -> list[str]:
        """Return the partitions for which an asset was made, by name."""
        folder = self.root / asset
        names = (
            (entry.name for entry in folder.iterdir() if (entry / _CURRENT_NAME).is_file()) if folder.is_dir() else ()
        )
        return sorted(names)

    def require(self, asset: str, partition: str) -> Artifact:
        """Return the artifact in use.

        Raises:
            MissingInputError: It was never made.
        """
        artifact = self.current(asset, partition)
        if artifact is None:
            raise MissingInputError(
                f"There is no {asset} for partition {partition} below {self.root}. Materialise {asset} first."
            )
        return artifact

    def forget(self, artifact: Artifact) -> None:
        """Let a partition have no artifact in use where it was this one."""
        pointer = artifact.directory.parent / _CURRENT_NAME
        if pointer.is_file() and pointer.read_text(encoding="utf-8").strip() == artifact.directory.name:
            pointer.unlink()

    def find(self, asset: str, partition: str, recipe_of_artifact: dict[str, Any]) -> Artifact | None:
        """Return the finished artifact of exactly this recipe, made current, or None where it has to be made."""
        name = _fingerprint(recipe_of_artifact, self.overridden_gates)[:_FOLDER_NAME_LENGTH]
        if not (self.root / asset / partition / name / MANIFEST_NAME).is_file():
            return None
        artifact = self._load(asset, partition, name)
        self._point_to(artifact)
        return artifact

    @contextlib.contextmanager
    def build(
        self,
        asset: str,
        partition: str,
        *,
        recipe_of_artifact: dict[str, Any],
        parents: dict[str, str] | None = None,
        seeds: dict[str, int] | None = None,
    ) -> Iterator[ArtifactBuild]:
        """Give a folder to fill; on a clean exit hash it, write the manifest last and make it current.

        An exception leaves no manifest; what an earlier, broken build left is removed first. Call `current` afterwards for
        the result.

        Raises:
            ArtifactError: A finished artifact of this recipe is already there (use `find` first).
        """
        fingerprint = _fingerprint(recipe_of_artifact, self.overridden_gates)
        directory = self.root / asset / partition / fingerprint[:_FOLDER_NAME_LENGTH]
        if (directory / MANIFEST_NAME).exists():
            raise ArtifactError(
                f"{directory} is finished; nothing is overwritten. Use it, or change the configuration."
            )
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
        build = ArtifactBuild(directory)
        started = time.monotonic()
        yield build
        files = {
            name: FileRecord(bytes=(directory / name).stat().st_size, sha256=sha256_file(directory / name))
            for name in sorted(_file_names(directory))
        }
        overridden = sorted(set(self.overridden_gates))
        manifest = Manifest(
            asset=asset,
            partition=partition,
            fingerprint=fingerprint,
            recipe_of_artifact=recipe_of_artifact,
            parents=parents or {},
            files=files,
            artifact_sha256=_tree_sha256(files, overridden),
            seeds=seeds or {},
            metadata=build.metadata,
            overridden_gates=overridden,
            created_at=datetime.now(UTC),
            seconds=round(time.monotonic() - started, 3),
            versions=package_versions(),
            hardware=hardware(),
        )
        write_atomically(directory / MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")
        self._point_to(Artifact(directory, manifest))

    def _load(self, asset: str, partition: str, name: str) -> Artifact:
        artifact = load_artifact(self.root / asset / partition / name)
        manifest = artifact.manifest
        found = (manifest.asset, manifest.partition, manifest.fingerprint[:_FOLDER_NAME_LENGTH])
        if found != (asset, partition, name):
            raise ArtifactError(
                f"{artifact.directory} holds {'/'.join(found)}, not {asset}/{partition}/{name}: it was moved or copied here. "
                f"Delete it and materialise {asset} again."
            )
        return artifact

    def _point_to(self, artifact: Artifact) -> None:
        write_atomically(artifact.directory.parent / _CURRENT_NAME, artifact.directory.name + "\n")


def load_artifact(directory: Path) -> Artifact:
    """Read a finished artifact's manifest.

    Raises:
        ArtifactError: The folder has no manifest, or one that does not parse.
    """
    path = directory / MANIFEST_NAME
    try:
        return Artifact(directory, Manifest.model_validate_json(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is no readable manifest ({error}). Materialise the asset again.") from error


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide results, by name."""
    names = ("toolcall-pipeline", "torch", "transformers", "peft", "trl", "llama-cpp-python", "gguf", "datasets")
    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def hardware() -> dict[str, Any]:
    """Return what this machine is, without names that identify it."""
    return {"platform": sys.platform, "machine": platform.machine(), "cpu_count": os.cpu_count()}


def _file_names(directory: Path) -> set[str]:
    """Return the relative POSIX paths of an artifact's files, without its manifest."""
    names = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    return names - {MANIFEST_NAME}


def _fingerprint(recipe_of_artifact: dict[str, Any], overridden_gates: Sequence[str]) -> str:
    if not overridden_gates:
        return sha256_json(recipe_of_artifact)
    return sha256_json({"recipe": recipe_of_artifact, "overridden_gates": sorted(set(overridden_gates))})


def _tree_sha256(files: dict[str, FileRecord], overridden_gates: Sequence[str]) -> str:
    lines = [f"{name}\0{files[name].sha256}\n" for name in sorted(files)]
    return sha256_text("".join(lines + [f"overridden\0{gate}\n" for gate in overridden_gates]))
