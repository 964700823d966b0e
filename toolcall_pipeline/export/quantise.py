"""F16 GGUF to a quantised one, by llama.cpp's own quantiser in this process."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolcall_pipeline.errors import ExportError
from toolcall_pipeline.llama_cpp_log import silence_llama_cpp
from toolcall_pipeline.training.gguf_header import GgufHeader, read_gguf_header

FILE_TYPES = {"Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "Q8_0": 7}
"""Name to llama.cpp's `llama_ftype`."""

_TAG_STRING = 3
_LONGEST_VALUE_BYTES = 127
_UNQUANTISED = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class QuantisationReport:
    """What a quantised file is made of.

    Attributes:
        quantisation: As asked for.
        size_bytes, bits_per_weight: Of the file's tensors.
        tensors_by_kind: Kind to number of tensors.
        fallback_tensors: Matrices of a higher kind than asked for since their rows are no multiple of 256.
    """

    quantisation: str
    size_bytes: int
    bits_per_weight: float
    tensors_by_kind: dict[str, int]
    fallback_tensors: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON; of the fallbacks the number and the first ten names."""
        return {
            "quantisation": self.quantisation,
            "size_bytes": self.size_bytes,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "tensors_by_kind": self.tensors_by_kind,
            "fallback_tensors_count": len(self.fallback_tensors),
            "fallback_tensors_first": list(self.fallback_tensors[:10]),
        }


def quantise(source: Path, target: Path, quantisation: str, *, fields: Mapping[str, str] | None = None) -> None:
    """Quantise a GGUF.

    Args:
        source: F16 GGUF.
        target: File to write; nothing is left there on failure.
        quantisation: One of `FILE_TYPES`.
        fields: Metadata to add; llama.cpp takes at most 127 bytes of each value.

    Raises:
        ExportError: llama.cpp refused, or what it wrote is not whole.
    """
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[quantisation]
    parameters.nthread = os.cpu_count() or 1
    overrides = _overrides(fields or {})
    parameters.kv_overrides = ctypes.cast(overrides, ctypes.POINTER(llama_cpp.llama_model_kv_override))
    with _QuietLog() as log:
        code = llama_cpp.llama_model_quantize(
            os.fsencode(source), os.fsencode(target), ctypes.byref(parameters)
        )  # fmt: skip
    if code != 0 or not target.is_file():
        target.unlink(missing_ok=True)
        raise ExportError(
            f"llama.cpp could not quantise {source} to {quantisation} (code {code}). Look at the free disk space and at "
            f"the file. It said: {log.tail()}"
        )
    read_gguf_header(target)


def describe(path: Path, quantisation: str) -> QuantisationReport:
    """Return what a quantised file is made of.

    Raises:
        ArtifactError: The file is damaged.
    """
    header = read_gguf_header(path)
    wanted = _kinds_of(quantisation)
    fallbacks = tuple(
        tensor.name
        for tensor in header.tensors
        if len(tensor.shape) > 1 and tensor.kind not in wanted and tensor.kind not in _UNQUANTISED
    )
    return QuantisationReport(
        quantisation=quantisation,
        size_bytes=path.stat().st_size,
        bits_per_weight=header.bits_per_weight,
        tensors_by_kind=dict(sorted(Counter(tensor.kind for tensor in header.tensors).items())),
        fallback_tensors=fallbacks,
    )


def _kinds_of(quantisation: str) -> tuple[str, ...]:
    """Return the tensor kinds a file type is made of on purpose: the mixtures hold Q6_K as well."""
    kind = quantisation.removesuffix("_M")
    return (kind, "Q6_K") if quantisation.endswith("_M") else (kind,)


def file_type_of(header: GgufHeader) -> int | None:
    """Return llama.cpp's number of a file's quantisation, None where the file does not say."""
    return header.fields.get("general.file_type")


def _overrides(fields: Mapping[str, str]) -> Any:
    import llama_cpp

    array = (llama_cpp.llama_model_kv_override * (len(fields) + 1))()
    for entry, (key, value) in zip(array, fields.items(), strict=False):
        data = value.encode("utf-8")
        if len(data) > _LONGEST_VALUE_BYTES:
            raise ExportError(f"Metadata {key} has {len(data)} bytes; llama.cpp takes at most {_LONGEST_VALUE_BYTES}.")
        entry.tag = _TAG_STRING
        entry.key = key.encode("utf-8")
        entry.value.val_str = data
    return array


class _QuietLog:
    """Keep llama.cpp's own words for the error message instead of the terminal."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __enter__(self) -> _QuietLog:
        import llama_cpp

        @llama_cpp.llama_log_callback
        def keep(level: int, text: bytes, user_data: object) -> None:
            self._lines.append(text.decode("utf-8", errors="replace"))
            del self._lines[:-40]

        self._callback = keep
        llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
        return self

    def __exit__(self, *error: object) -> None:
        silence_llama_cpp()

    def tail(self) -> str:
        """Return the last of what llama.cpp said."""
        return "".join(self._lines)[-800:].strip()
