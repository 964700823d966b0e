"""Whether a GGUF serves what was trained: template string, rendered bytes and token ids.

Training renders with Jinja2 through transformers; LM Studio and llama-server render with llama.cpp's own engine, which
is asked here through its server.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import Artifact, sha256_text
from toolcall_pipeline.dataset import files
from toolcall_pipeline.errors import ExportError, MissingInputError
from toolcall_pipeline.export.llama_server import LlamaServer
from toolcall_pipeline.export.runtime import opened, token_ids
from toolcall_pipeline.training.base_model import load_tokenizer_folder
from toolcall_pipeline.training.gguf_header import read_gguf_header

Prompt = dict[str, Any]
"""`{"id", "messages", "tools"}`: messages and tools as a chat template takes them."""

_MOST_EXAMPLES = 5
_CONTEXT_TOKENS = 512


def suite_prompts(dataset: Artifact) -> Iterator[Prompt]:
    """Return every prompt of the suite that a dataset was kept apart from."""
    return _prompts(dataset, files.PARITY_CASES, limit=None)


def validation_prompts(dataset: Artifact, *, limit: int) -> Iterator[Prompt]:
    """Return the prompts of a dataset's first validation rows."""
    return _prompts(dataset, files.VALID_CHAT, limit=limit)


def _prompts(dataset: Artifact, name: str, *, limit: int | None) -> Iterator[Prompt]:
    with dataset.path(name).open(encoding="utf-8") as lines:
        for index, line in enumerate(islice(lines, limit)):
            yield _prompt(f"{Path(name).name}:{index + 1}", json.loads(line))


def _prompt(name: str, data: dict[str, Any]) -> Prompt:
    """Return a prompt of a stored case or row: up to and without its last assistant message."""
    tools = json.loads(data["tools"]) if isinstance(data.get("tools"), str) else data.get("tools") or []
    messages = [_message(message) for message in data["messages"]]
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    return {"id": name, "messages": messages, "tools": list(tools)}


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as a template takes it, from a suite case or from a dataset row on disk."""
    result: dict[str, Any] = {"role": message["role"], "content": message.get("content") or ""}
    calls = []
    for call in message.get("tool_calls") or []:
        function = call.get("function", call)
        arguments = function["arguments"]
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        calls.append({"type": "function", "function": {"name": function["name"], "arguments": arguments}})
    if calls:
        result["tool_calls"] = calls
    return result


def measure_parity(gguf: Path, model_dir: Path, prompts: Iterable[Prompt]) -> dict[str, Any]:
    """Compare what a GGUF serves with what its training rendered.

    Args:
        gguf: The file that ships.
        model_dir: Folder of the model it was made from, with the tokenizer and template that trained.
        prompts: What to render.

    Returns:
        `template_equal`, numbers of prompts whose bytes or token ids differ or that one engine refused, and of the
        first of them where they part (an offset and a hash, no text).

    Raises:
        MissingInputError: There is no prompt to compare.
    """
    tokenizer = load_tokenizer_folder(model_dir)
    report: dict[str, Any] = {
        "template_equal": read_gguf_header(gguf).fields.get("tokenizer.chat_template") == tokenizer.chat_template,
        "template_sha256": sha256_text(str(tokenizer.chat_template)),
        "prompts_count": 0, "bytes_differ_count": 0, "tokens_differ_count": 0, "refused_count": 0, "examples": [],
    }  # fmt: skip
    with LlamaServer(gguf, context_tokens=_CONTEXT_TOKENS) as server, opened(gguf, vocab_only=True) as llama:
        for prompt in prompts:
            report["prompts_count"] += 1
            _compare(prompt, tokenizer, server, llama, report)
    if not report["prompts_count"]:
        raise MissingInputError("There is no prompt to compare templates on: the dataset has no validation rows.")
    return report


def _compare(prompt: Prompt, tokenizer: Any, server: LlamaServer, llama: Any, report: dict[str, Any]) -> None:
    expected = render(tokenizer, prompt["messages"], prompt["tools"])
    try:
        found = server.apply_template(prompt["messages"], prompt["tools"])
    except ExportError as error:
        _note(report, "refused_count", prompt, {"refused": type(error).__name__})
        return
    if found != expected:
        offset = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), None)
        _note(
            report,
            "bytes_differ_count",
            prompt,
            {"first_difference_offset": offset, "lengths": [len(expected), len(found)]},
        )
    if token_ids(llama, expected) != list(tokenizer(expected, add_special_tokens=False)["input_ids"]):
        _note(report, "tokens_differ_count", prompt, {"tokens": "differ"})


def render(tokenizer: Any, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> str:
    """Return a prompt as training rendered it, generation prompt included."""
    return str(
        tokenizer.apply_chat_template(
            list(messages), tools=list(tools) or None, tokenize=False, add_generation_prompt=True
        )
    )


def _note(report: dict[str, Any], counter: str, prompt: Prompt, details: dict[str, Any]) -> None:
    report[counter] += 1
    if len(report["examples"]) < _MOST_EXAMPLES:
        report["examples"].append({"id": prompt["id"], "kind": counter.removesuffix("_count"), **details})
