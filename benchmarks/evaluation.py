"""Evaluation: cases together against one after another on the same backend, and false alarms on real calls.

    python -m benchmarks.evaluation --model FILE.gguf [--cases 32] [--sequences 8]
    python -m benchmarks.evaluation --sessions FOLDER
    python -m benchmarks.evaluation --hostile

The first prints the ratio of speeds, and how far the outcomes agree (a gated run needs 0.98). The second writes every
distinct call of the sessions as a completion, reads it and each text the agent said, and counts each defect. The third
times the reader on hostile completions of 250,000 and 1,000,000 characters: four times the time is linear.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from toolcall_pipeline.dataset.schemas import function_tool, registry
from toolcall_pipeline.evaluation.backends import Backend, open_backend
from toolcall_pipeline.evaluation.cases import Case, CaseResult
from toolcall_pipeline.evaluation.completions import read_completion
from toolcall_pipeline.evaluation.play import PlaySettings
from toolcall_pipeline.evaluation.runner import agreement, run_cases, select_cases
from toolcall_pipeline.evaluation.suites.single_turn import single_turn_cases
from toolcall_pipeline.evaluation.suites.vague import vague_cases

BAR_RATIO_CPU = 1.2
BAR_RATIO_GPU = 10.0
BAR_REPETITION_RATIO = 0.003


def compare_speeds(model: str, *, cases_count: int, sequences: int, max_new_tokens: int, context_tokens: int) -> dict:
    """Run the same cases one after another, and otherwise; return speeds, their ratios and the agreement.

    On a GPU there are two ways beside one after another: each case decoded alone, in contexts beside each other, and
    several decoded together in each context.
    """
    cases = select_cases(
        [*single_turn_cases((), 550), *vague_cases((), 600)],
        ["D", "V"],
        {"D": cases_count // 2, "V": cases_count - cases_count // 2},
    )
    reference, reference_seconds = _timed(_open_one_at_a_time(model, context_tokens), cases, max_new_tokens)
    found: dict[str, Any] = {"cases": len(cases), "one_at_a_time": _speed(reference, reference_seconds)}
    ways = {"together": sequences}
    if Path(model).is_file() and _has_gpu():
        ways = {"beside_each_other": 1, **ways}
    for name, count in ways.items():
        backend = open_backend(model, context_tokens=context_tokens, sequences=count)
        results, seconds = _timed(backend, cases, max_new_tokens)
        found[name] = {
            "sequences": count,
            **_speed(results, seconds),
            "ratio": round(reference_seconds / seconds, 2),
            **agreement(reference, results),
        }
    return found


def _open_one_at_a_time(model: str, context_tokens: int) -> Backend:
    if not Path(model).is_file():
        return open_backend(model, context_tokens=context_tokens)
    from toolcall_pipeline.evaluation.backends.llama_cpp_backend import LlamaCppBackend

    return LlamaCppBackend(Path(model), context_tokens=context_tokens, lanes=1)


def _has_gpu() -> bool:
    import llama_cpp

    return bool(llama_cpp.llama_supports_gpu_offload())


def _timed(backend: Backend, cases: list[Case], max_new_tokens: int) -> tuple[list[CaseResult], float]:
    """Return the results of cases and the seconds they took; the backend is closed."""
    settings = PlaySettings(max_new_tokens)
    run_cases(backend, cases[:1], settings)
    started = time.monotonic()
    results = run_cases(backend, cases, settings)
    seconds = time.monotonic() - started
    backend.close()
    return results, seconds


def _speed(results: list[CaseResult], seconds: float) -> dict[str, float]:
    tokens = _completion_tokens(results)
    return {"seconds": round(seconds, 2), "completion_tokens_per_second": round(tokens / seconds, 1)}


def _completion_tokens(results: list[CaseResult]) -> int:
    return sum(turn.completion_tokens for result in results for turn in result.turns)


def count_false_alarms(sessions: Path) -> dict:
    """Read every distinct call and text of Claude Code sessions as a completion; return how many have each defect."""
    tools = {
        name: function_tool(name, str(tool["description"]), tool["parameters"]) for name, tool in registry().items()
    }
    seen: set[str] = set()
    kinds: Counter[str] = Counter()
    texts: set[str] = set()
    text_kinds: Counter[str] = Counter()
    for path in sorted(sessions.rglob("*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                for text in _texts_of(line):
                    if text not in texts:
                        texts.add(text)
                        text_kinds.update(
                            {defect.kind for defect in read_completion(text, list(tools.values())).defects}
                        )
                for call in _calls_of(line):
                    if call["id"] in seen:
                        continue
                    seen.add(call["id"])
                    raw = json.dumps({"name": call["name"], "arguments": call["input"]}, ensure_ascii=False)
                    offered = [tools[call["name"]]] if call["name"] in tools else None
                    reading = read_completion(f"<tool_call>\n{raw}\n</tool_call>", offered)
                    kinds.update({defect.kind for defect in reading.defects})
    shares = {kind: round(count / max(1, len(seen)), 6) for kind, count in sorted(kinds.items())}
    return {
        "calls": len(seen),
        "defects": dict(sorted(kinds.items())),
        "ratios": shares,
        "texts": len(texts),
        "defects_of_texts": dict(sorted(text_kinds.items())),
    }


def _calls_of(line: str) -> list[dict]:
    return [
        block
        for block in _blocks(line, "tool_use")
        if isinstance(block.get("id"), str) and isinstance(block.get("name"), str) and "input" in block
    ]


def _texts_of(line: str) -> list[str]:
    return [block["text"] for block in _blocks(line, "text") if isinstance(block.get("text"), str)]


def _blocks(line: str, kind: str) -> list[dict]:
    if f'"{kind}"' not in line:
        return []
    try:
        value = json.loads(line)
    except ValueError:
        return []
    message = value.get("message") if isinstance(value, dict) else None
    content = message.get("content") if isinstance(message, dict) and message.get("role") == "assistant" else None
    blocks = content if isinstance(content, list) else []
    return [block for block in blocks if isinstance(block, dict) and block.get("type") == kind]


HOSTILE = (
    "<tool_call>", "<tool_call>{", "<tool_call>[\"", "<tool_call>{\"a\": 1", "<tool_call>" + "[" * 50, "</tool_call>",
    "<think>", "x<think>", "</think>", "x</think>y", "{", "[", '{"name":"Read",', '{"a":', '"', "a", "a\n", "<function=",
    "<|im_end|>", '<tool_call>{"name": "Read", "arguments": {"file_path": "a"}}</tool_call>x',
)  # fmt: skip


def time_hostile_completions() -> dict:
    """Return the slowest processor seconds of a million characters of one pattern, and the worst ratio to a quarter of it."""
    slowest_pattern, slowest_seconds, worst_ratio = "", 0.0, 0.0
    for pattern in HOSTILE:
        seconds = []
        for length in (250_000, 1_000_000):
            raw = (pattern * (length // len(pattern) + 1))[:length]
            started = time.process_time()
            read_completion(raw, [function_tool("Read", "", {"type": "object"})], hit_token_limit=True)
            seconds.append(time.process_time() - started)
        if seconds[1] > slowest_seconds:
            slowest_pattern, slowest_seconds = pattern, seconds[1]
        # Below a tenth of a second, what varies is the machine.
        worst_ratio = max(worst_ratio, seconds[1] / max(seconds[0], 0.1))
    return {
        "slowest_pattern": slowest_pattern,
        "slowest_seconds": round(slowest_seconds, 3),
        "worst_ratio_for_four_times_the_length": round(worst_ratio, 2),
    }


def main() -> int:
    """Print the figures as JSON; return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="GGUF file, Hugging Face folder or URL")
    parser.add_argument("--sessions", type=Path, help="folder of Claude Code sessions")
    parser.add_argument("--hostile", action="store_true", help="time the reader on hostile completions")
    parser.add_argument("--cases", type=int, default=32)
    parser.add_argument("--sequences", type=int, default=8)
    # Completions of the trained SmolLM2 in docs/reference/training.md had 984 tokens on average.
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--context-tokens", type=int, default=4096)
    parser.add_argument("--gpu", action="store_true", help="hold the ratio against the bar for a GPU")
    arguments = parser.parse_args()
    missed = False
    if arguments.sessions:
        alarms = count_false_alarms(arguments.sessions)
        print(json.dumps(alarms, indent=1))
        missed |= alarms["ratios"].get("argument_repetition", 0.0) > BAR_REPETITION_RATIO
    if arguments.hostile:
        print(json.dumps(time_hostile_completions(), indent=1))
    if arguments.model:
        speeds = compare_speeds(
            arguments.model,
            cases_count=arguments.cases,
            sequences=arguments.sequences,
            max_new_tokens=arguments.max_new_tokens,
            context_tokens=arguments.context_tokens,
        )
        print(json.dumps(speeds, indent=1))
        missed |= speeds["together"]["ratio"] < (BAR_RATIO_GPU if arguments.gpu else BAR_RATIO_CPU)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
