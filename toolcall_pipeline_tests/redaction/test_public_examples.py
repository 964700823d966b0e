"""The public rule set's own examples: at least 95 % of true secrets gone whole, at most 3 % of the harmless altered."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from toolcall_pipeline.redaction import Redactor


def test_true_examples_are_altered_and_harmless_ones_stay(shared_dir: Path) -> None:
    lines = gzip.decompress((shared_dir / "testassets" / "gitleaks" / "examples.jsonl.gz").read_bytes()).splitlines()
    examples = [json.loads(line) for line in lines]
    redacted = Redactor().redact_texts([example["text"] for example in examples], "s")
    altered = {"true_positive": 0, "false_positive": 0}
    total = dict(altered)
    for example, after in zip(examples, redacted, strict=True):
        total[example["kind"]] += 1
        altered[example["kind"]] += after != example["text"]
    assert altered["true_positive"] / total["true_positive"] >= 0.95
    assert altered["false_positive"] / total["false_positive"] <= 0.03
