"""Setting up `.venv`: a second time does nothing; what is broken, moved or of another Python is made anew."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("bootstrap.py", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "stamp")
    return module


def make_venv(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("")
    (folder / "bin" / "pip").write_text(f"#!{folder / 'bin' / 'python'}\n")
    (folder / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {platform.python_version()}\n")
    return folder


def test_a_finished_environment_is_usable(bootstrap: ModuleType, tmp_path: Path) -> None:
    assert bootstrap.is_usable(make_venv(tmp_path / "a"))


@pytest.mark.parametrize("missing", ["bin/python", "bin/pip", "pyvenv.cfg"])
def test_one_whose_creation_was_cut_short_is_not(bootstrap: ModuleType, tmp_path: Path, missing: str) -> None:
    folder = make_venv(tmp_path / "a")
    (folder / missing).unlink()
    assert not bootstrap.is_usable(folder)


def test_one_that_was_moved_is_not(bootstrap: ModuleType, tmp_path: Path) -> None:
    moved = make_venv(tmp_path / "a").rename(tmp_path / "b")
    assert not bootstrap.is_usable(moved)


def test_one_of_another_python_is_not(bootstrap: ModuleType, tmp_path: Path) -> None:
    folder = make_venv(tmp_path / "a")
    (folder / "pyvenv.cfg").write_text("version = 3.10.0\n")
    assert not bootstrap.is_usable(folder)


def test_a_second_time_installs_nothing_and_any_changed_pin_installs_again(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installs: list[str] = []

    def install() -> int:
        installs.append("install")
        bootstrap.STAMP.parent.mkdir(exist_ok=True)
        bootstrap.STAMP.write_text(bootstrap.installation_fingerprint())
        return 0

    monkeypatch.setattr(bootstrap, "install", install)
    assert [bootstrap.main(), bootstrap.main()] == [0, 0]
    assert len(installs) == 1
    with (tmp_path / "constraints.txt").open("a") as constraints:
        constraints.write("another==1.0\n")
    assert bootstrap.main() == 0
    assert len(installs) == 2


def test_a_step_that_fails_says_so_and_leaves_no_stamp(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import subprocess

    def fails(*arguments: str, **options: str) -> None:
        raise subprocess.CalledProcessError(1, ["pip", *arguments])

    make_venv(bootstrap.VENV)
    monkeypatch.setattr(bootstrap, "pip", fails)
    assert bootstrap.main() == 3
    assert "run make again" in capsys.readouterr().err
    assert not bootstrap.STAMP.exists()
