"""Artifacts on disk: where each asset leaves its files, and the manifest beside them.

An artifact is a folder `<home>/artifacts/<asset>/<partition>/<fingerprint>/` whose `manifest.json` was written last.
A folder without a manifest does not exist as far as anyone is concerned. The fingerprint is the hash of everything
that decides the content (parents, configuration, seeds, code versions), so making the same thing again finds it, and
making another thing never overwrites. `<partition>/current` names the fingerprint in use.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from toolcall_pipeline.errors import ArtifactError, MissingInputError

MANIFEST_NAME = "manifest.json"
_CURRENT_NAME = "current"
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
        artifact_sha256: SHA-256 over the sorted `path NUL sha256 LF` lines of `files`; what gate verdicts are about.
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
        """Compare every file with the manifest.

        Raises:
            ArtifactError: A file is missing, cut or changed; the message names it with the expected and found hash.
        """
        for name, record in self.manifest.files.items():
            path = self.directory / name
            if not path.is_file():
                raise ArtifactError(f"{path} is missing. Materialise {self.manifest.asset} again.")
            size = path.stat().st_size
            found = sha256_file(path) if size == record.bytes else f"{size} bytes"
            if found != record.sha256:
                raise ArtifactError(
                    f"{path} changed since it was made: expected {record.bytes} bytes with SHA-256 {record.sha256}, "
                    f"found {found}. Delete the folder and materialise {self.manifest.asset} again."
                )


@dataclass
class ArtifactBuild:
    """An artifact being made: write files below `directory`, set counts in `metadata`."""

    directory: Path
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ArtifactStore:
    """The artifacts below one folder."""

    root: Path

    def current(self, asset: str, partition: str) -> Artifact | None:
        """Return the artifact in use for an asset and partition, or None where there is none."""
        pointer = self.root / asset / partition / _CURRENT_NAME
        if not pointer.is_file():
            return None
        return load_artifact(pointer.parent / pointer.read_text(encoding="utf-8").strip())

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

    def find(self, asset: str, partition: str, recipe_of_artifact: dict[str, Any]) -> Artifact | None:
        """Return the finished artifact of exactly this recipe, made current, or None where it has to be made."""
        directory = self._directory(asset, partition, sha256_json(recipe_of_artifact))
        if not (directory / MANIFEST_NAME).is_file():
            return None
        artifact = load_artifact(directory)
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
        overridden_gates: list[str] | None = None,
        resume: bool = False,
    ) -> Iterator[ArtifactBuild]:
        """Give a folder to fill; on a clean exit hash it, write the manifest last and make it current.

        An exception leaves no manifest. With `resume` what an earlier, broken build of the same recipe left (training
        checkpoints) is kept and handed over; otherwise it is removed first. Call `current` afterwards for the result.

        Raises:
            ArtifactError: A finished artifact of this recipe is already there (use `find` first).
        """
        fingerprint = sha256_json(recipe_of_artifact)
        directory = self._directory(asset, partition, fingerprint)
        if (directory / MANIFEST_NAME).exists():
            raise ArtifactError(
                f"{directory} is finished; nothing is overwritten. Use it, or change the configuration."
            )
        if directory.exists() and not resume:
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
        build = ArtifactBuild(directory)
        started = time.monotonic()
        yield build
        files = {
            path.relative_to(directory).as_posix(): FileRecord(bytes=path.stat().st_size, sha256=sha256_file(path))
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }
        manifest = Manifest(
            asset=asset,
            partition=partition,
            fingerprint=fingerprint,
            recipe_of_artifact=recipe_of_artifact,
            parents=parents or {},
            files=files,
            artifact_sha256=_tree_sha256(files),
            seeds=seeds or {},
            metadata=build.metadata,
            overridden_gates=sorted(set(overridden_gates or [])),
            created_at=datetime.now(UTC),
            seconds=round(time.monotonic() - started, 3),
            versions=package_versions(),
            hardware=hardware(),
        )
        write_atomically(directory / MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")
        self._point_to(Artifact(directory, manifest))

    def _directory(self, asset: str, partition: str, fingerprint: str) -> Path:
        return self.root / asset / partition / fingerprint[:16]

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


def _tree_sha256(files: dict[str, FileRecord]) -> str:
    return sha256_text("".join(f"{name}\0{files[name].sha256}\n" for name in sorted(files)))
