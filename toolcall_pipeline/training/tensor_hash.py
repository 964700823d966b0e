"""The hash of a tensor's numbers, whatever it is stored as."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def tensor_sha256(tensor: torch.Tensor) -> str:
    """Return the SHA-256 of a tensor's numbers as float32."""
    return hashlib.sha256(tensor.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()
