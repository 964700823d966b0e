"""Hugging Face folder to F16 GGUF, by llama.cpp's own converter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from toolcall_pipeline.errors import ExportError
from toolcall_pipeline.export.llama_cpp_source import converter_path

_LOG_CHARACTERS = 1500


def convert_to_f16(model_dir: Path, target: Path, *, metadata: dict[str, Any]) -> None:
    """Convert a model folder to a GGUF with 16-bit weights.

    Args:
        model_dir: Hugging Face folder with tokenizer and chat template.
        target: File to write; nothing is left there on failure.
        metadata: Metadata keys of GGUF, such as `general.name`, that override what the converter infers.

    Raises:
        ExportError: The converter failed; the message ends with what it said last.
    """
    command = [
        sys.executable, str(converter_path()), str(model_dir), "--outtype", "f16", "--outfile", str(target),
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as scratch:
        override = Path(scratch) / "metadata.json"
        override.write_text(json.dumps(metadata), encoding="utf-8")
        done = subprocess.run(
            [*command, "--metadata", str(override)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        )
    if done.returncode != 0 or not target.is_file():
        target.unlink(missing_ok=True)
        said = done.stdout.decode("utf-8", errors="replace")[-_LOG_CHARACTERS:]
        raise ExportError(
            f"llama.cpp's converter could not convert {model_dir} (exit code {done.returncode}). Look at the model "
            f"folder and at the free disk space. It said: ...{said}"
        )
