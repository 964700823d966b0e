"""llama.cpp's own log lines, kept off the terminal; what goes wrong is still raised by who calls it."""

from __future__ import annotations

import ctypes
import functools
from typing import Any


def silence_llama_cpp() -> None:
    """Let llama.cpp say nothing from here on."""
    import llama_cpp

    llama_cpp.llama_log_set(_silent(), ctypes.c_void_p(0))


@functools.cache
def _silent() -> Any:
    """Return the callback, made once and kept: llama.cpp holds no more than its address."""
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda level, text, user_data: None)
