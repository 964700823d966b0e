"""Picking a token from logits: greedy or nucleus, free or under a grammar; llama.cpp's own samplers."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.backends.protocol import Request

if TYPE_CHECKING:
    import numpy as np

# Greedy at 0; otherwise plain nucleus sampling, as servers do by default.
_TOP_K = 40
_TOP_P = 0.95
_MIN_P = 0.05
# Logits this far below the best are looked at only where there are fewer than `_TOP_K` above.
_FAR_BELOW = 12.0
# A refused token's replacement is nearly always among the best ones.
_FIRST_ASKED = 256


class TokenPicker:
    """Picks the tokens of one completion; an own one for every completion, since grammar and dice have a state."""

    def __init__(self, request: Request, vocabulary: Any) -> None:
        """Prepare the samplers of a request.

        Raises:
            EvaluationError: llama.cpp cannot read the grammar of the request's tools.
        """
        self.is_greedy = request.temperature <= 0
        self._chain = None if self.is_greedy else _nucleus(request)
        self._grammar = _grammar(request, vocabulary) if request.grammar else None

    @property
    def is_plain(self) -> bool:
        """Return whether the largest logit decides, and nothing else."""
        return self.is_greedy and self._grammar is None

    def pick(self, logits: np.ndarray) -> int:
        """Return the next token.

        A grammar is asked about the token that would be picked without it, and only where it refuses that one about
        others, as llama.cpp's server does: asking about all of a vocabulary costs more than the model.
        """
        import llama_cpp

        token = int(logits.argmax()) if self.is_greedy else self._draw(_likely(logits))
        if self._grammar is None:
            return token
        if not len(self._allowed(_candidates(logits, [token]))):
            token = self._pick_allowed(logits)
        llama_cpp.llama_sampler_accept(self._grammar, token)
        return token

    def _pick_allowed(self, logits: np.ndarray) -> int:
        import numpy as np

        best = np.argpartition(logits, -_FIRST_ASKED)[-_FIRST_ASKED:] if len(logits) > _FIRST_ASKED else ()
        for ids in (best, np.arange(len(logits))):
            allowed = self._allowed(_candidates(logits, ids))
            if len(allowed):
                return int(allowed["id"][allowed["logit"].argmax()]) if self.is_greedy else self._draw(allowed)
        raise EvaluationError("No token of the vocabulary fits the grammar of the tools here.")

    def _allowed(self, candidates: np.ndarray) -> np.ndarray:
        """Return the candidates that the grammar takes next."""
        import numpy as np

        _apply(self._grammar, candidates)
        return np.ascontiguousarray(candidates[np.isfinite(candidates["logit"])])

    def _draw(self, candidates: np.ndarray) -> int:
        array = _apply(self._chain, candidates)
        return int(array.data[array.selected].id)

    def close(self) -> None:
        """Free the samplers."""
        import llama_cpp

        for sampler in (self._chain, self._grammar):
            if sampler is not None:
                llama_cpp.llama_sampler_free(sampler)


def _nucleus(request: Request) -> Any:
    import llama_cpp

    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    for sampler in (
        llama_cpp.llama_sampler_init_top_k(_TOP_K),
        llama_cpp.llama_sampler_init_top_p(ctypes.c_float(_TOP_P), 1),
        llama_cpp.llama_sampler_init_min_p(ctypes.c_float(_MIN_P), 1),
        llama_cpp.llama_sampler_init_temp(ctypes.c_float(request.temperature)),
        llama_cpp.llama_sampler_init_dist(request.seed),
    ):
        llama_cpp.llama_sampler_chain_add(chain, sampler)
    return chain


def _grammar(request: Request, vocabulary: Any) -> Any:
    import llama_cpp

    from toolcall_pipeline.evaluation.grammar import grammar_of_tools

    text = grammar_of_tools(request.tools)
    grammar = llama_cpp.llama_sampler_init_grammar(vocabulary, text.encode("utf-8"), b"root")
    if not grammar:
        raise EvaluationError(
            f"llama.cpp cannot read the grammar of {len(request.tools)} tools, case {request.case_id}."
        )
    return grammar


def _likely(logits: np.ndarray) -> np.ndarray:
    """Return candidates that surely hold the `_TOP_K` best, without sorting a whole vocabulary."""
    import numpy as np

    ids = np.flatnonzero(logits >= logits.max() - _FAR_BELOW)
    return _candidates(logits, ids if len(ids) >= _TOP_K else np.arange(len(logits)))


def _candidates(logits: np.ndarray, ids: np.ndarray | Sequence[int]) -> np.ndarray:
    """Return some tokens as llama.cpp's `llama_token_data`."""
    import numpy as np

    candidates = np.zeros(len(ids), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    candidates["id"] = ids
    candidates["logit"] = logits[candidates["id"]]
    return candidates


def _apply(sampler: Any, candidates: np.ndarray) -> Any:
    """Run a sampler over candidates, in place; return the `llama_token_data_array` it left."""
    import llama_cpp

    array = llama_cpp.llama_token_data_array(
        data=candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data)),
        size=len(candidates),
        selected=-1,
        sorted=False,
    )
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
    return array
