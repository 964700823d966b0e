"""Twenty rows as a page, decoded from the very tokens that train, supervised ones highlighted."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import write_atomically
from toolcall_pipeline.dataset import files
from toolcall_pipeline.dataset.masks import IGNORED, EncodedRow
from toolcall_pipeline.dataset.writing import read_encoded, read_rows

SAMPLE_ROWS = 20
_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font:12.5px/1.45 ui-monospace,monospace;border:1px solid #8886;
border-radius:6px;padding:.8rem;max-height:34rem;overflow:auto}mark{background:#b7e4c7;color:#081c15;border-radius:2px}
summary{cursor:pointer;padding:.4rem 0}summary b{font-variant-numeric:tabular-nums}
"""


def write_sample_page(directory: Path) -> None:
    """Write the page from the artifact's own files, so that it shows what trains and nothing else."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / files.TOKENIZER))
    rows = itertools.islice(read_rows(directory / files.TRAIN_CHAT), SAMPLE_ROWS)
    encoded = read_encoded(directory / files.ENCODED_TRAIN)
    parts = []
    for number, (row, tokens) in enumerate(zip(rows, encoded, strict=False), 1):
        supervised = len(tokens.labels) - tokens.labels.count(IGNORED)
        title = f"{number}. {row.meta.category} — {supervised} of {len(tokens.input_ids)} tokens supervised"
        place = f"{row.meta.source_file}:{row.meta.source_line}"
        parts.append(
            f"<details{' open' if number <= 3 else ''}><summary><b>{html.escape(title)}</b> "
            f"<small>{html.escape(place)}</small></summary><pre>{_highlighted(tokens, tokenizer)}</pre></details>"
        )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sample rows</title>'
        f"<style>{_STYLE}</style></head><body><h1>Sample rows</h1><p>Decoded from the tokens that train. "
        f"<mark>Highlighted</mark> tokens are supervised, all others are context.</p>{''.join(parts)}</body></html>\n"
    )
    write_atomically(directory / files.SAMPLE_ROWS, page)


def _highlighted(tokens: EncodedRow, tokenizer: Any) -> str:
    pieces = []
    pairs = zip(tokens.input_ids, tokens.labels, strict=True)
    for supervised, group in itertools.groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        text = html.escape(_decode([token for token, _ in group], tokenizer))
        pieces.append(f"<mark>{text}</mark>" if supervised else text)
    return "".join(pieces)


def _decode(ids: Sequence[int], tokenizer: Any) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))
