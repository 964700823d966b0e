"""Attention over packed rows: no token sees another row, and no time is spent on the pairs that are masked.

On CUDA that is PyTorch's variable-length flash attention; elsewhere transformers builds the block mask for SDPA from the
position ids of the same packed batch, so both see the same rows.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.errors import TrainingError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

VARLEN_NAME = "toolcall_varlen"
_LENGTH_STEP_TOKENS = 128


def choose_attention(device: str, precision: str, config: PretrainedConfig) -> str:
    """Return the attention implementation for packed rows on a device: variable-length on CUDA in bf16, else SDPA."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    sliding = getattr(config, "use_sliding_window", None) and getattr(config, "sliding_window", None)
    usable = device == "cuda" and precision == "bf16" and head_dim % 8 == 0 and head_dim <= 256 and not sliding
    return VARLEN_NAME if usable else "sdpa"


def register_varlen(longest_row_tokens: int) -> None:
    """Make variable-length attention known to transformers under `VARLEN_NAME`.

    Args:
        longest_row_tokens: Longest row of any batch, of both splits: the kernel leaves what lies beyond it unwritten
            (the loss then becomes NaN).
    """
    from torch.nn.attention.varlen import varlen_attn
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    limit = -(-longest_row_tokens // _LENGTH_STEP_TOKENS) * _LENGTH_STEP_TOKENS
    known = inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    grouped = "enable_gqa" in known
    scaled = "scale" in known

    def varlen_forward(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        cu_seq_lens_q: torch.Tensor | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        if cu_seq_lens_q is None or query.shape[0] != 1:
            raise TrainingError(
                "Variable-length attention got a batch without row boundaries: it serves padding-free training only."
            )
        heads, key_heads = query.shape[1], key.shape[1]
        query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        options = dict(causal)
        if heads != key_heads:
            if grouped:
                options["enable_gqa"] = True
            else:
                key = key.repeat_interleave(heads // key_heads, dim=1)
                value = value.repeat_interleave(heads // key_heads, dim=1)
        if scaled:
            options["scale"] = scaling
        output = varlen_attn(query, key, value, cu_seq_lens_q, cu_seq_lens_q, limit, limit, **options)
        return output.unsqueeze(0), None  # type: ignore[union-attr]

    AttentionInterface.register(VARLEN_NAME, varlen_forward)
    AttentionMaskInterface.register(VARLEN_NAME, lambda *_, **__: None)
