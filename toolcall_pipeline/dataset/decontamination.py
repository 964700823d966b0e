"""What training rows share with the suites (13-grams of typed prompts) and with validation rows (near-duplicates).

Tool output never counts: it would drop 96 % of a corpus of one's own projects. Boilerplate is taken out of prompts
first: tagged blocks that agents insert, and 13-grams that five or more families share (pasted instructions, templates).
A whole prompt that equals a suite's prompt counts in any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRAM_WORDS = 13
BOILERPLATE_FAMILIES = 5
"""A 13-gram typed in this many families is nobody's question."""
LEAST_PROMPT_WORDS = 3
"""Shorter prompts ("ok", "go on") say nothing a suite could ask."""
NEAR_DUPLICATE_RATIO = 0.8
_SHINGLE_WORDS = 5
_PERMUTATIONS = 64
_MAX_SHINGLED_WORDS = 4000
_WORD = re.compile(r"\w+")
_TAGGED = re.compile(r"<([a-zA-Z][\w-]*)(?:\s[^<>]*)?>.*?</\1>", re.DOTALL)
_LEFT_OUT_NOTE = re.compile(r"\n\n\[\d+ earlier steps of this task are left out here\.\]\Z")
Grams = NDArray[np.uint64]


def typed_words(prompt: str) -> list[str]:
    """Return the words of a prompt in lower case, without tagged blocks and our note of what is left out."""
    text = _LEFT_OUT_NOTE.sub("", prompt)
    if "</" in text:
        text = _TAGGED.sub(" ", text)
    return _WORD.findall(text.lower())


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def word_grams(words: Sequence[str], length: int) -> Grams:
    """Return one 64-bit hash per run of `length` words, in order; empty where there are fewer words."""
    count = len(words) - length + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    hashes = np.fromiter(map(_word_hash, words), dtype=np.uint64, count=len(words))
    result = np.zeros(count, dtype=np.uint64)
    for offset in range(length):
        result = result * np.uint64(0x9E3779B97F4A7C15) + hashes[offset : offset + count]
    return result ^ (result >> np.uint64(29))


def whole_prompt_hash(words: Sequence[str]) -> int | None:
    """Return a hash of a whole prompt, None where it is too short to be a question."""
    return _word_hash("\0".join(words)) if len(words) >= LEAST_PROMPT_WORDS else None


@dataclass(frozen=True, slots=True)
class PromptPrint:
    """What is compared of a typed prompt."""

    grams: Grams
    whole: int | None


def print_prompt(prompt: str) -> PromptPrint:
    """Return what is compared of a typed prompt."""
    words = typed_words(prompt)
    return PromptPrint(np.unique(word_grams(words, GRAM_WORDS)), whole_prompt_hash(words))


def boilerplate(prints: Iterable[tuple[str, PromptPrint]]) -> Grams:
    """Return the 13-grams that at least five families typed, sorted.

    Args:
        prints: (family id, print) of every prompt of the corpus.
    """
    by_family: dict[str, list[Grams]] = {}
    for family, item in prints:
        if len(item.grams):
            by_family.setdefault(family, []).append(item.grams)
    if not by_family:
        return np.empty(0, dtype=np.uint64)
    distinct = [np.unique(np.concatenate(members)) for members in by_family.values()]
    grams, counts = np.unique(np.concatenate(distinct), return_counts=True)
    return grams[counts >= BOILERPLATE_FAMILIES]


class SuitePrompts:
    """The prompts of all suites, to ask whether a training prompt shares anything with them."""

    def __init__(self, prompts: Iterable[str], ignored: Grams) -> None:
        prints = [print_prompt(prompt) for prompt in prompts]
        grams = [item.grams for item in prints if len(item.grams)]
        found = np.unique(np.concatenate(grams)) if grams else np.empty(0, dtype=np.uint64)
        self._grams = np.setdiff1d(found, ignored)
        self._whole = {item.whole for item in prints if item.whole is not None}

    def shares_with(self, item: PromptPrint) -> bool:
        """Return whether a prompt shares a 13-gram with a suite, or is a suite's prompt."""
        if item.whole is not None and item.whole in self._whole:
            return True
        return bool(len(item.grams) and len(self._grams) and np.isin(item.grams, self._grams, assume_unique=True).any())


def _identity(value: int) -> int:
    return value


@lru_cache(maxsize=1)
def _permutations() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=_PERMUTATIONS, seed=1, scheme="affine32").permutations


def row_minhash(texts: Iterable[str]) -> Any:
    """Return the MinHash of a row's own words (prompt and assistant turns, no tool output).

    Source: Broder 1997; datasketch's implementation, five-word shingles.
    """
    from datasketch import MinHash

    words: list[str] = []
    for text in texts:
        words.extend(_WORD.findall(text.lower()))
        if len(words) > _MAX_SHINGLED_WORDS:
            break
    shingles = word_grams(words[:_MAX_SHINGLED_WORDS], min(_SHINGLE_WORDS, max(1, len(words))))
    sketch = MinHash(
        num_perm=_PERMUTATIONS, seed=1, hashfunc=_identity, permutations=_permutations(), scheme="affine32"
    )
    if len(shingles):
        sketch.update_batch((shingles & np.uint64(0xFFFFFFFF)).tolist())
    return sketch


class NearDuplicates:
    """Validation rows, to ask whether a training row is nearly one of them."""

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        self._index = MinHashLSH(threshold=NEAR_DUPLICATE_RATIO, num_perm=_PERMUTATIONS)
        self._sketches: dict[str, Any] = {}

    def add(self, row_id: str, sketch: Any) -> None:
        """Take in a validation row."""
        self._sketches[row_id] = sketch
        self._index.insert(row_id, sketch, check_duplication=False)

    def is_near(self, sketch: Any) -> bool:
        """Return whether a row's estimated Jaccard similarity to a validation row is 0.8 or more."""
        return any(
            sketch.jaccard(self._sketches[row_id]) >= NEAR_DUPLICATE_RATIO for row_id in self._index.query(sketch)
        )
