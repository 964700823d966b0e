"""Twenty rows as a page, decoded from the very tokens that train, supervised ones highlighted."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import write_atomically
from toolcall_pipeline.dataset import files
from toolcall_pipeline.dataset.masks import IGNORED, EncodedRow
from toolcall_pipeline.dataset.writing import read_encoded, read_rows

SAMPLE_ROWS = 20
_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
article{border:1px solid #8886;border-radius:8px;margin:1rem 0;padding:.2rem 1rem 1rem}h2{font-size:1.05rem;margin:.8rem 0 0}
h2 small{font-weight:normal;opacity:.7;margin-left:.5rem}section,section>details{margin:.7rem 0 0}
section{border-left:3px solid #8886;padding-left:.8rem}section.assistant{border-color:#2d9d63}
h3,summary{font-size:.82rem;font-weight:600;opacity:.75;margin:0}summary{cursor:pointer}h3 small{font-weight:normal}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font:12.5px/1.45 ui-monospace,monospace;margin:.2rem 0 0;max-height:22rem;
overflow:auto}mark{background:#b7e4c7;color:#081c15;border-radius:2px}
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
        title = f"{number}. {row.meta.category}: {supervised} of {len(tokens.input_ids)} tokens supervised"
        place = f"{row.meta.source_file}:{row.meta.source_line}"
        turns = "".join(_turn(ids, labels, tokenizer) for ids, labels in _turns(tokens, tokenizer))
        parts.append(f"<article><h2>{html.escape(title)}<small>{html.escape(place)}</small></h2>{turns}</article>")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sample rows</title>'
        f"<style>{_STYLE}</style></head><body><h1>Sample rows</h1><p>Decoded from the tokens that train, one block for each "
        f"turn. <mark>Highlighted</mark> tokens are supervised, all others are context.</p>{''.join(parts)}</body></html>\n"
    )
    write_atomically(directory / files.SAMPLE_ROWS, page)


def _turns(tokens: EncodedRow, tokenizer: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Yield ids and labels turn by turn; all at once where the tokenizer has no token that begins one."""
    start_id = tokenizer.token_to_id("<|im_start|>")
    starts = [index for index, token in enumerate(tokens.input_ids) if token == start_id and index]
    for start, stop in itertools.pairwise([0, *starts, len(tokens.input_ids)]):
        yield tokens.input_ids[start:stop], tokens.labels[start:stop]


def _turn(ids: list[int], labels: list[int], tokenizer: Any) -> str:
    role = _decode(ids[1:8], tokenizer).split("\n", 1)[0][:20]
    supervised = len(labels) - labels.count(IGNORED)
    count = f"{len(ids)} tokens" + (f", {supervised} supervised" if supervised else "")
    text = f"<pre>{_highlighted(ids, labels, tokenizer)}</pre>"
    if role == "system" and not supervised:
        # The tools on offer fill a screen: a click away, so that what is taught comes first.
        return f"<section><details><summary>system and tools, {count}</summary>{text}</details></section>"
    kind = "assistant" if role == "assistant" else "other"
    return f'<section class="{kind}"><h3>{html.escape(role)} <small>{count}</small></h3>{text}</section>'


def _highlighted(ids: list[int], labels: list[int], tokenizer: Any) -> str:
    pieces = []
    for supervised, group in itertools.groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != IGNORED):
        text = html.escape(_decode([token for token, _ in group], tokenizer))
        pieces.append(f"<mark>{text}</mark>" if supervised else text)
    return "".join(pieces)


def _decode(ids: Sequence[int], tokenizer: Any) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))
