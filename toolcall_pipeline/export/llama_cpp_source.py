"""Where llama.cpp's own converter lies: unpacked by the installation from the source distribution of llama-cpp-python.

Converter, quantiser and runtime are then of one commit.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from toolcall_pipeline.errors import MissingInputError

CONVERTER_NAME = "convert_hf_to_gguf.py"
_VARIABLE = "TOOLCALL_PIPELINE_LLAMA_CPP"


def converter_path() -> Path:
    """Return the path of llama.cpp's converter.

    Raises:
        MissingInputError: It is not installed.
    """
    folder = Path(os.environ[_VARIABLE]) if os.environ.get(_VARIABLE) else Path(sys.prefix) / "share" / "llama.cpp"
    path = folder / CONVERTER_NAME
    if not path.is_file():
        raise MissingInputError(
            f"llama.cpp's converter is not at {path}. `make setup` puts it there from the source distribution of "
            f"llama-cpp-python; or point {_VARIABLE} at a llama.cpp checkout of the same version."
        )
    return path
