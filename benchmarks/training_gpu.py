"""LoRA training on one GPU: our entry point against TRL's SFTTrainer, on the same rows, in one run.

    python -m benchmarks.training_gpu [--out DIR] [--parts peak,attention,losses,packed,exact,trl,trl8] [--tiny]

SFTTrainer runs twice: `trl8` with everything as it comes (8 rows a batch, gradient checkpointing, bf16, padded, SDPA; its
`max_length=1024` alone is lifted, since it would cut the rows), and `trl` with 1 row x 4, the setting that 15 times its
speed was asked of. Both ratios are printed.

The model has the shape of Qwen2.5-3B and random weights; rows are conversations (system, user, calls, tool results,
text) of which only the assistant's turns are supervised. MFU = tokens/s x 4 N / measured peak: frozen weights need no
gradient of their own, so a trained token costs 4 N operations, not 6 N. `--tiny` runs every part with a toy model on
whatever device there is: it proves the script, its speeds mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from toolcall_pipeline.presets import TrainingConfiguration

QWEN25_3B = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 2048, "intermediate_size": 11008,
    "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151_936,
    "max_position_embeddings": 32_768, "rope_theta": 1_000_000.0, "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
    "hidden_act": "silu", "use_sliding_window": False, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
TINY = {**QWEN25_3B, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 1024, "max_position_embeddings": 4096}  # fmt: skip
PARTS = ("peak", "attention", "losses", "packed", "exact", "trl", "trl8")
MEAN_TOKENS, LONGEST_TOKENS = 1100, 4096
IM_START, IM_END, FIRST_TEXT = 1, 2, 16


def conversations(count: int, vocabulary: int, *, mean_tokens: int, longest_tokens: int, seed: int) -> list[dict]:
    """Return encoded conversations: log-normal lengths, about 15 % of the tokens supervised."""
    import numpy as np

    random = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        length = int(np.clip(random.lognormal(np.log(mean_tokens) - 0.25, 0.7), 64, longest_tokens))
        ids: list[int] = []
        labels: list[int] = []

        def turn(size: int, supervised: bool, ids: list[int] = ids, labels: list[int] = labels) -> None:
            body = [*random.integers(FIRST_TEXT, vocabulary, size).tolist(), IM_END]
            ids.extend([IM_START, *body])
            labels.extend([-100, *(body if supervised else [-100] * len(body))])

        turn(max(8, length // 3), False)
        while len(ids) < length - 16:
            step = min(length - len(ids), max(24, length // 4))
            turn(max(4, step * 3 // 4), False)
            turn(max(2, step * 22 // 100), True)
        ids, labels = ids[:longest_tokens], labels[:longest_tokens]
        rows.append({"row_id": f"row-{index}", "input_ids": ids, "labels": labels})
    return rows


def write_inputs(folder: Path, config: dict[str, Any], rows: list[dict], valid_count: int) -> None:
    """Write the model's configuration, a tokenizer that only has to exist, and the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    base = folder / "base"
    base.mkdir(parents=True, exist_ok=True)
    (base / "config.json").write_text(json.dumps(config))
    words = {"<pad>": 0, "<|im_start|>": IM_START, "<|im_end|>": IM_END}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>",
        eos_token="<|im_end|>",
    ).save_pretrained(base)
    schema = pa.schema([("row_id", pa.string()), ("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
    pq.write_table(pa.Table.from_pylist(rows[valid_count:], schema=schema), folder / "train.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:valid_count], schema=schema), folder / "valid.parquet")


def measure_peak() -> float:
    """Return the GPU's bf16 rate on an 8192 cubed product of random matrices, in FLOP/s: median of ten."""
    import torch

    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(13):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        a @ b
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return 2 * size**3 / sorted(times[3:])[5]


def check_attention() -> dict[str, float]:
    """Compare variable-length attention with SDPA row by row, output and gradients, against float32."""
    import torch
    from transformers import AttentionInterface

    from toolcall_pipeline.training.attention import VARLEN_NAME, register_varlen

    lengths = (5, 128, 1, 700, 2048, 333)
    register_varlen(max(lengths))
    varlen = AttentionInterface()[VARLEN_NAME]
    torch.manual_seed(int(time.time()))
    heads, key_heads, width, total = 16, 2, 128, sum(lengths)
    shapes = ((1, heads, total, width), (1, key_heads, total, width), (1, key_heads, total, width))
    tensors = [torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    gradient = torch.randn(1, total, heads, width, device="cuda", dtype=torch.bfloat16)
    cumulative = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32, device="cuda")
    output, _ = varlen(torch.nn.Module(), *tensors, None, scaling=width**-0.5, cu_seq_lens_q=cumulative)
    found = [output, *torch.autograd.grad(output, tensors, gradient)]
    exact = [tensor.detach().float().requires_grad_() for tensor in tensors]
    pieces = [
        torch.nn.functional.scaled_dot_product_attention(*row, is_causal=True, enable_gqa=True)
        for row in zip(*(tensor.split(lengths, dim=2) for tensor in exact), strict=True)
    ]
    expected_output = torch.cat(pieces, dim=2).transpose(1, 2)
    expected = [expected_output, *torch.autograd.grad(expected_output, exact, gradient.float())]
    names = ("output", "query_gradient", "key_gradient", "value_gradient")
    return {
        name: float(((a.float() - b).norm() / b.norm()).detach())
        for name, a, b in zip(names, found, expected, strict=True)
    }


def check_losses(rows: list[dict], config: dict[str, Any], device: str) -> dict[str, float]:
    """Compare losses of packed rows with the same rows one by one through SDPA, on one model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from toolcall_pipeline.training.attention import VARLEN_NAME, register_varlen

    varlen = device == "cuda"
    dtype = torch.bfloat16 if varlen else torch.float32
    if varlen:
        register_varlen(max(len(row["input_ids"]) for row in rows))
    settings = AutoConfig.for_model(**{**config, "num_hidden_layers": min(8, config["num_hidden_layers"])})
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(settings, dtype=dtype, attn_implementation="sdpa").eval()
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    batch = {key: value.to(device) if hasattr(value, "to") else value for key, value in batch.items()}
    labels = batch.pop("labels")[0]
    with torch.inference_mode():
        alone = torch.cat([_losses(model(input_ids=_ids(row, device)).logits[0], _labels(row, device)) for row in rows])
        model.set_attn_implementation(VARLEN_NAME if varlen else "sdpa")
        together = _losses(model(**batch, use_cache=False).logits[0], labels)
    difference = (alone - together).abs()
    return {
        "tokens_count": alone.numel(), "rows_count": len(rows), "mean_loss_row_by_row": float(alone.mean()),
        "mean_loss_packed": float(together.mean()), "max_token_difference": float(difference.max()),
        "mean_ratio": float(together.mean() / alone.mean()),
    }  # fmt: skip


def _ids(row: dict, device: str) -> Any:
    import torch

    return torch.tensor([row["input_ids"]], device=device)


def _labels(row: dict, device: str) -> Any:
    import torch

    return torch.tensor(row["labels"], device=device)


def _losses(logits: Any, labels: Any) -> Any:
    import torch

    keep = labels[1:] != -100
    return torch.nn.functional.cross_entropy(logits[:-1][keep].float(), labels[1:][keep], reduction="none")


def train_ours(folder: Path, name: str, training: TrainingConfiguration, longest_tokens: int) -> dict[str, Any]:
    """Train through the project's entry point and return its steady rate: the second half of the steps."""
    from toolcall_pipeline.training.job import JOB_NAME, PROGRESS_NAME, SUMMARY_NAME, TrainingJob

    work_dir = folder / name
    job = TrainingJob(
        work_dir=work_dir, base_dir=folder / "base", base_source="benchmark", train_file=folder / "train.parquet",
        valid_file=folder / "valid.parquet", training=training, max_row_tokens=longest_tokens,
        identity={"benchmark": name}, random_weights=True,
    )  # fmt: skip
    work_dir.mkdir(parents=True)
    (work_dir / JOB_NAME).write_text(job.model_dump_json())
    command = [sys.executable, "-m", "toolcall_pipeline.training", str(work_dir / JOB_NAME)]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.returncode, "said": (done.stdout[-600:] + done.stderr[-2500:])}
    events = [json.loads(line) for line in (work_dir / PROGRESS_NAME).read_text().splitlines()]
    steps = [event for event in events if "tokens_per_second" in event]
    half, last = steps[len(steps) // 2], steps[-1]
    first_step = next(event["step"] for event in events if event["event"] == "step")

    def elapsed(event: dict) -> float:
        return event["seconds_per_step"] * (event["step"] - first_step)

    seconds = elapsed(last) - elapsed(half)
    tokens = last["tokens_per_second"] * elapsed(last) - half["tokens_per_second"] * elapsed(half)
    summary = json.loads((work_dir / SUMMARY_NAME).read_text())
    return {
        "tokens_per_second": tokens / seconds, "seconds_per_step": seconds / (last["step"] - half["step"]),
        "steps_measured": last["step"] - half["step"], "peak_gib": summary.get("peak_gpu_bytes", 0) / 2**30,
        "attention": summary["attention"], "losses": [round(event["loss"], 4) for event in steps[:: max(1, len(steps) // 6)]],
        "process_seconds": time.monotonic() - started,
    }  # fmt: skip


def train_trl(folder: Path, name: str, batch: int, accumulation: int, steps: int, tiny: bool) -> dict[str, Any]:
    """Train the same rows with SFTTrainer as it comes but for batch and `max_length`, first steps left out."""
    import pyarrow.parquet as pq
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):
        times: list[float] = []  # noqa: RUF012

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.monotonic())

    device = "cuda" if torch.cuda.is_available() else "cpu"
    table = pq.read_table(folder / "train.parquet", columns=["input_ids", "labels"])
    settings = AutoConfig.from_pretrained(folder / "base")
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32 if device == "cpu" else torch.bfloat16)
    clock, seen = Clock(), []
    clock.times = []
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            str(folder / name), max_steps=steps, per_device_train_batch_size=batch, max_length=None,
            gradient_accumulation_steps=accumulation, report_to=[], save_strategy="no", bf16=device == "cuda",
            use_cpu=device == "cpu", disable_tqdm=True,
        ),
        train_dataset=Dataset(table, fingerprint="train"),
        processing_class=AutoTokenizer.from_pretrained(folder / "base"),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock],
    )  # fmt: skip
    collate = trainer.data_collator

    def counting(examples: list[dict]) -> Any:
        seen.append(sum(len(example["input_ids"]) for example in examples))
        return collate(examples)

    trainer.data_collator = counting
    trainer.train()
    skip = 2
    tokens = sum(seen[skip * accumulation : steps * accumulation])
    seconds = clock.times[-1] - clock.times[skip - 1]
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    shown = ("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "bf16", "packing",
             "padding_free", "max_length", "loss_type")  # fmt: skip
    return {
        "tokens_per_second": tokens / seconds, "steps_measured": steps - skip, "peak_gib": peak,
        "arguments": {name: getattr(trainer.args, name) for name in shown},
        "attention": trainer.model.config._attn_implementation,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the parts asked for, print the table, write `training_gpu.json`."""
    import tempfile

    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available() and not options.tiny:
        sys.stdout.write("training_gpu: no CUDA device here; --tiny proves the script on this one\n")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="training-gpu-")) if options.one is None else Path(options.one)
    config = TINY if options.tiny else QWEN25_3B
    mean, longest = (60, 256) if options.tiny else (MEAN_TOKENS, LONGEST_TOKENS)
    rows = conversations(
        60 if options.tiny else 1600, config["vocab_size"], mean_tokens=mean, longest_tokens=longest, seed=7
    )
    if options.one is None:
        write_inputs(folder, config, rows, valid_count=8)
    results: dict[str, Any] = {} if options.one else describe(rows)
    for part in options.parts.split(","):
        started = time.monotonic()
        results[part] = run_part(part, folder, rows, config, options, longest)
        sys.stdout.write(f"{part}: {json.dumps(results[part])} ({time.monotonic() - started:.0f} s)\n")
        sys.stdout.flush()
        if options.out is not None and options.one is None:
            (options.out / "training_gpu.json").write_text(json.dumps(results, indent=1))
    if options.one is None:
        sys.stdout.write(table_of(results, config) + "\n")
    return 0


def describe(rows: list[dict]) -> dict[str, Any]:
    """Return what the rows and the machine are."""
    import torch

    lengths = [len(row["input_ids"]) for row in rows]
    supervised = sum(sum(label != -100 for label in row["labels"]) for row in rows)
    return {
        "rows_count": len(rows), "mean_tokens": sum(lengths) / len(rows), "longest_tokens": max(lengths),
        "supervised_ratio": supervised / sum(lengths), "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }  # fmt: skip


def run_part(part: str, folder: Path, rows: list[dict], config: dict, options: Any, longest: int) -> Any:
    """Run one part; those that fill the GPU run in a process of their own."""
    device = "cuda" if not options.tiny else "cpu"
    if part == "peak":
        return {"tflops": measure_peak() / 1e12} if device == "cuda" else {"tflops": 0.1}
    if part == "attention":
        return check_attention() if device == "cuda" else {}
    if part == "losses":
        return check_losses(sorted(rows[:24], key=lambda row: len(row["input_ids"]))[:12], config, device)
    if part in ("packed", "exact"):
        common = {"lora_rank": 16, "lora_alpha": 32, "max_steps": options.steps, "save_every_steps": 10_000,
                  "evaluate_every_steps": 10_000, "evaluation_rows": 8}  # fmt: skip
        if options.tiny:
            common |= {"device": "cpu", "precision": "fp32"}
        special = {"packed_tokens": 1024 if options.tiny else 16_384} if part == "packed" else {"rows_per_step": 4}
        return train_ours(folder, part, TrainingConfiguration(**common, **special), longest)
    if options.one is None:
        command = [sys.executable, "-m", "benchmarks.training_gpu", "--one", str(folder), "--parts", part]
        done = subprocess.run(
            [*command, *(["--tiny"] if options.tiny else [])], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return {"failed": done.returncode, "said": done.stderr[-1500:]}
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{part}: "))
        return json.loads(line.removeprefix(f"{part}: ").rpartition(" (")[0])
    return train_trl(folder, part, 8 if part == "trl8" else 1, 1 if part == "trl8" else 4, 12, options.tiny)


def table_of(results: dict[str, Any], config: dict[str, Any]) -> str:
    """Return the throughput table, against both settings of SFTTrainer."""
    parameters = parameter_count(config)
    peak = results.get("peak", {}).get("tflops", 0) * 1e12
    references = [results.get(part, {}).get("tokens_per_second") for part in ("trl", "trl8")]
    names = {"packed": "ours, packed 16k", "exact": "ours, exactly 4 rows a step", "trl": "SFTTrainer, 1 row x 4",
             "trl8": "SFTTrainer's own batch, 8 x 1"}  # fmt: skip
    lines = [
        f"N = {parameters:,}; peak {peak / 1e12:.0f} TFLOP/s",
        f"{'variant':32}{'tokens/s':>10}{'MFU':>8}{'x 1x4':>8}{'x 8x1':>8}{'GiB':>7}",
    ]
    for part, name in names.items():
        rate = results.get(part, {}).get("tokens_per_second")
        if rate:
            mfu = rate * 4 * parameters / peak if peak else 0
            ratios = "".join(f"{rate / reference:8.1f}" if reference else " " * 8 for reference in references)
            lines.append(f"{name:32}{rate:10,.0f}{mfu:8.1%}{ratios}{results[part]['peak_gib']:7.1f}")
    return "\n".join(lines)


def parameter_count(config: dict[str, Any]) -> int:
    """Return the parameters of a Qwen2 shape with tied embeddings."""
    hidden, width = config["hidden_size"], config["hidden_size"] // config["num_attention_heads"]
    keys = config["num_key_value_heads"] * width
    attention = 2 * hidden * hidden + 2 * hidden * keys + hidden + 2 * keys
    layer = attention + 3 * hidden * config["intermediate_size"] + 2 * hidden
    return config["num_hidden_layers"] * layer + config["vocab_size"] * hidden + hidden


if __name__ == "__main__":
    sys.exit(main())
