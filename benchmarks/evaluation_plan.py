"""How long a whole evaluation of a model of some shape takes on this machine, from measured speeds.

    python -m benchmarks.evaluation_plan [--model FILE.gguf] [--lanes 16] [--sequences 64]
        [--prompt-tokens N] [--completion-tokens N]

Without a model, a GGUF of the shape of Qwen2.5-3B is made, with random weights in Q8_0: speed does not depend on what they
say. Measured are the evaluation of prompts and the decoding, of one sequence, of contexts beside each other, and of contexts
of several sequences, each sequence as deep as a prompt and half a completion; the plan divides the tokens of an evaluation
by them. Their numbers come from a run: `statistics` of its results.json. The defaults are those of suite version 1 of the
shared corpus (2,500 results).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

QWEN25_3B = {
    "block_count": 36, "embedding_length": 2048, "feed_forward_length": 11_008, "head_count": 16, "head_count_kv": 2,
    "vocabulary": 151_936,
}  # fmt: skip
TINY = {
    "block_count": 2, "embedding_length": 256, "feed_forward_length": 512, "head_count": 4, "head_count_kv": 2,
    "vocabulary": 1024,
}  # fmt: skip
CONTEXT_TOKENS = 8192
RESULTS_COUNT = 2500
_STEPS = 48


def write_random_gguf(path: Path, shape: dict[str, int]) -> None:
    """Write a qwen2 model with random weights and no vocabulary of its own."""
    import gguf
    import numpy as np

    random = np.random.default_rng(0)
    width, vocabulary = shape["embedding_length"], shape["vocabulary"]
    key_width = width // shape["head_count"] * shape["head_count_kv"]
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(32_768)
    writer.add_embedding_length(width)
    writer.add_block_count(shape["block_count"])
    writer.add_feed_forward_length(shape["feed_forward_length"])
    writer.add_head_count(shape["head_count"])
    writer.add_head_count_kv(shape["head_count_kv"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("no_vocab")

    def matrix(name: str, rows: int, columns: int) -> None:
        blocks = np.empty((rows, columns // 32, 34), np.uint8)
        # A Q8_0 block: its scale as float16, then 32 signed bytes; this scale gives a deviation of about 0.02.
        blocks[:, :, :2] = np.frombuffer(np.float16(0.00027).tobytes(), np.uint8)
        blocks[:, :, 2:] = random.integers(0, 256, (rows, columns // 32, 32), np.uint8)
        writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    def vector(name: str, size: int, value: float) -> None:
        writer.add_tensor(name, np.full(size, value, np.float32))

    matrix("token_embd.weight", vocabulary, width)
    vector("output_norm.weight", width, 1.0)
    for layer in range(shape["block_count"]):
        for name, rows in (("attn_q", width), ("attn_k", key_width), ("attn_v", key_width)):
            matrix(f"blk.{layer}.{name}.weight", rows, width)
            vector(f"blk.{layer}.{name}.bias", rows, 0.0)
        matrix(f"blk.{layer}.attn_output.weight", width, width)
        matrix(f"blk.{layer}.ffn_gate.weight", shape["feed_forward_length"], width)
        matrix(f"blk.{layer}.ffn_up.weight", shape["feed_forward_length"], width)
        matrix(f"blk.{layer}.ffn_down.weight", width, shape["feed_forward_length"])
        for name in ("attn_norm", "ffn_norm"):
            vector(f"blk.{layer}.{name}.weight", width, 1.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(path: Path, *, lanes: int, sequences: int, depth: int) -> dict[str, float]:
    """Return the tokens per second of prompts and of completions.

    Args:
        path: A GGUF file.
        lanes: Contexts beside each other, each in a thread of its own.
        sequences: How many each decodes together.
        depth: Tokens of each sequence when its completion begins to be timed.
    """
    import llama_cpp
    import numpy as np

    from toolcall_pipeline.evaluation.backends.llama_cpp_context import SequenceContext
    from toolcall_pipeline.evaluation.backends.llama_cpp_model import thread_count
    from toolcall_pipeline.llama_cpp_log import silence_llama_cpp

    silence_llama_cpp()
    llama = llama_cpp.Llama(model_path=str(path), n_ctx=32, n_batch=32, n_ubatch=32, n_gpu_layers=-1, verbose=False)
    model = llama._model.model
    threads = thread_count() if lanes == 1 else 1
    prompt = np.random.default_rng(0).integers(0, 1000, depth).tolist()
    contexts = [
        SequenceContext(model, context_tokens=CONTEXT_TOKENS, sequences=sequences, threads=threads)
        for _ in range(lanes)
    ]

    def fill(context: SequenceContext) -> None:
        for sequence in range(sequences):
            # They begin differently, so that none is a copy of another.
            context.prefill([sequence, *prompt[1:]], [sequence])

    def decode(context: SequenceContext) -> None:
        tokens = [1] * sequences
        for _ in range(_STEPS):
            tokens = context.extend(tokens).argmax(axis=1).tolist()

    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(decode, contexts))
        seconds = {}
        for name, work in (("prompt", fill), ("warm", decode), ("completion", decode)):
            started = time.monotonic()
            list(pool.map(work, contexts))
            seconds[name] = time.monotonic() - started
    for context in contexts:
        context.close()
    llama.close()
    return {
        "prompt_tokens_per_second": round(lanes * sequences * depth / seconds["prompt"], 1),
        "completion_tokens_per_second": round(lanes * sequences * _STEPS / seconds["completion"], 1),
    }


def plan(rates: dict[str, float], *, prompt_tokens: int, completion_tokens: int) -> float:
    """Return the minutes a run of `RESULTS_COUNT` results takes."""
    prompts = RESULTS_COUNT * prompt_tokens / rates["prompt_tokens_per_second"]
    completions = RESULTS_COUNT * completion_tokens / rates["completion_tokens_per_second"]
    return round((prompts + completions) / 60, 1)


def main() -> int:
    """Print speeds and plan as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file; a random one of the shape of Qwen2.5-3B without")
    parser.add_argument("--tiny", action="store_true", help="a toy shape: proves the script")
    parser.add_argument("--lanes", type=int, default=16, help="contexts beside each other; half of them together")
    parser.add_argument("--sequences", type=int, default=64, help="decoded together, over all contexts")
    parser.add_argument("--prompt-tokens", type=int, default=1500, help="of one result, on average")
    parser.add_argument("--completion-tokens", type=int, default=150, help="of one result, on average")
    arguments = parser.parse_args()
    lengths = {"prompt_tokens": arguments.prompt_tokens, "completion_tokens": arguments.completion_tokens}
    depth = min(arguments.prompt_tokens + arguments.completion_tokens // 2, CONTEXT_TOKENS - 4 * _STEPS)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or Path(folder) / "random.gguf"
        if arguments.model is None:
            write_random_gguf(path, TINY if arguments.tiny else QWEN25_3B)
        ways = {
            "one_at_a_time": (1, 1),
            "beside_each_other": (arguments.lanes, 1),
            "together": (max(1, arguments.lanes // 2), -(-2 * arguments.sequences // arguments.lanes)),
        }
        found: dict[str, Any] = {"results": RESULTS_COUNT, **lengths}
        for name, (lanes, sequences) in ways.items():
            rates = measure(path, lanes=lanes, sequences=sequences, depth=depth)
            found[name] = {
                "contexts": lanes,
                "sequences_of_each": sequences,
                **rates,
                "minutes": plan(rates, **lengths),
            }
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
