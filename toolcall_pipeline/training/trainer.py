"""The recipe, readable top to bottom: base model, LoRA, batches, TRL's SFTTrainer.

Supported: one GPU, several GPUs (accelerate, FSDP), Apple MPS, CPU; bf16 and fp32; packed rows and exactly N rows a
step. Not supported: full fine-tuning, 4-bit bases, an adapter on the output head (TRL scores tokens with the head's own
weight), preference training.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.errors import ConfigurationError, TrainingError
from toolcall_pipeline.training.attention import VARLEN_NAME, choose_attention, register_varlen
from toolcall_pipeline.training.base_model import load_model_folder, load_tokenizer_folder
from toolcall_pipeline.training.encoded import EncodedRows
from toolcall_pipeline.training.job import TrainingJob
from toolcall_pipeline.training.packing import BatchPlan, plan_batches

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel
    from trl import SFTTrainer

_RECOMPILE_LIMIT = 512
"""Batches differ in their number of rows; torch's default of 8 shapes would fall back to eager and run out of memory."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What was decided before training: where, in which precision, with which attention and batches."""

    device: str
    precision: str
    attention: str
    batches: BatchPlan
    compiled: bool


def resolve_device(training_device: str) -> str:
    """Return cuda, mps or cpu for a configured device.

    Raises:
        ConfigurationError: The device asked for is not here.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if training_device == "auto":
        return next(name for name, there in available.items() if there)
    if not available[training_device]:
        raise ConfigurationError(
            f"training.device is {training_device!r}, but this machine has none that PyTorch can use. Set it to auto, "
            "or install a build of torch for it."
        )
    return training_device


def decide(job: TrainingJob, longest_row_tokens: int) -> Setup:
    """Decide device, precision, attention and batches of a job.

    Raises:
        ConfigurationError, TrainingError: They do not fit the data or this machine.
    """
    from transformers import AutoConfig

    device = resolve_device(job.training.device)
    precision = job.training.precision
    if precision == "auto":
        precision = "bf16" if device == "cuda" and _has_bf16() else "fp32"
    if precision == "bf16" and device == "cuda" and not _has_bf16():
        raise ConfigurationError("training.precision is bf16, but this GPU has no bf16. Set it to fp32.")
    config = AutoConfig.from_pretrained(job.base_dir, trust_remote_code=False, local_files_only=True)
    attention = choose_attention(device, precision, config)
    batches = plan_batches(job.training, device=device, longest_row_tokens=longest_row_tokens)
    return Setup(device, precision, attention, batches, compiled=device == "cuda")


def build_trainer(
    job: TrainingJob, setup: Setup, train: EncodedRows, valid: EncodedRows, *, evaluate_first: bool
) -> SFTTrainer:
    """Return a trainer that has not started.

    Args:
        job: What to train.
        setup: Where, in which precision, with which batches.
        train: Encoded rows; their labels are used as they are.
        valid: Encoded rows the loss is compared on.
        evaluate_first: Whether training begins with an evaluation of the untrained model. It has to be part of the
            training: FSDP takes model and optimizer together, so an evaluation before it cannot be sharded.
    """
    import torch
    from peft import LoraConfig
    from transformers import PrinterCallback, set_seed
    from trl import SFTTrainer

    set_seed(job.training.seed)
    longest = max(*train.lengths_tokens, *valid.lengths_tokens)
    if setup.attention == VARLEN_NAME:
        register_varlen(longest)
    model = _load_base(job, setup)
    if setup.device == "cpu":
        _score_supervised_positions_only()
    if job.training.process_count > 1:
        _run_head_in_evaluation(model)
    if setup.compiled:
        torch._dynamo.config.recompile_limit = _RECOMPILE_LIMIT
        for layer in _decoder_layers(model):
            layer.compile()
    training = job.training
    trainer = SFTTrainer(
        model=model,
        args=_arguments(job, setup, evaluate_first=evaluate_first),
        train_dataset=_dataset(train, setup.batches, "train"),
        eval_dataset=_dataset(valid, setup.batches, "valid"),
        processing_class=load_tokenizer_folder(job.base_dir),
        peft_config=LoraConfig(
            r=training.lora_rank,
            lora_alpha=training.lora_alpha,
            lora_dropout=training.lora_dropout,
            target_modules=list(training.target_modules),
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )
    # Without a progress bar transformers prints each log as well, between the lines of JSON.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _score_supervised_positions_only() -> None:
    """Let TRL compute the output head where a label is, on a CPU as on a GPU.

    Where there is no Triton, TRL 1.16 scores every position, to spare some accelerators a recompilation. Of 979 tokens of
    SmolLM2 110 supervised ones took 9.7 s of processor time a step in place of 13.5 s; loss and gradient are the same.
    """
    from trl.trainer import utils

    if not hasattr(utils, "_use_triton"):
        raise TrainingError("This version of TRL scores tokens in another way than 1.16: install the pinned one.")
    utils._use_triton = lambda device: True


def _run_head_in_evaluation(model: PreTrainedModel) -> None:
    """Call the output head once after each forward pass of an evaluation, on one empty position.

    TRL reads the head's weight without calling the head. accelerate 1.15 shards it in one group with the embedding, and
    FSDP of torch before 2.13 closes a group when all of it ran, or after a backward pass, which an evaluation has not. Left
    open, a checkpoint after an evaluation shards the group and the next step finds it sharded (seen on two H100).
    """

    def run_head(module: Any, _inputs: Any, _output: Any) -> None:
        if not module.training:
            head = module.get_output_embeddings()
            head(head.weight.new_zeros(1, head.weight.shape[1]))

    model.register_forward_hook(run_head)


def _dataset(rows: EncodedRows, batches: BatchPlan, name: str) -> Dataset:
    """Return rows as TRL takes them, packed where the plan says so.

    Fingerprints are given by hand: datasets would pickle the table and the packing function to make one, which takes
    long and fails with some versions of pyarrow, for a cache that a process of its own never meets again.
    """
    from datasets import Dataset
    from trl import pack_dataset

    dataset = Dataset(rows.table.select(["input_ids", "labels"]), fingerprint=name)
    if not batches.packed_tokens:
        return dataset
    packed = pack_dataset(dataset, batches.packed_tokens, "bfd", {"new_fingerprint": f"{name}-packed"})
    _require_whole_rows(rows, packed["seq_lengths"])
    return packed


def _require_whole_rows(rows: EncodedRows, packed_lengths: Iterable[list[int]]) -> None:
    """Compare the rows inside the packed sequences with the rows that were packed: none may be cut or lost.

    Raises:
        TrainingError: They are not the same lengths.
    """
    found = Counter(length for sequence in packed_lengths for length in sequence)
    if found != Counter(rows.lengths_tokens):
        raise TrainingError(
            f"Packing {len(rows.lengths_tokens)} rows of {rows.tokens} tokens gave {found.total()} rows of "
            f"{sum(length * count for length, count in found.items())} tokens: this version of TRL cuts or loses rows. "
            "Set training.packed_tokens=0, or training.rows_per_step, to train without packing."
        )


def _arguments(job: TrainingJob, setup: Setup, *, evaluate_first: bool) -> Any:
    from trl import SFTConfig

    training, batches = job.training, setup.batches
    packed = batches.packed_tokens > 0
    return SFTConfig(
        output_dir=str(job.checkpoints_dir),
        per_device_train_batch_size=batches.rows_per_batch,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=batches.gradient_accumulation,
        gradient_checkpointing=training.gradient_checkpointing,
        num_train_epochs=training.epochs,
        max_steps=-1 if training.max_steps is None else training.max_steps,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup_ratio,
        weight_decay=training.weight_decay,
        optim="adamw_torch_fused" if setup.device == "cuda" else "adamw_torch",
        bf16=setup.precision == "bf16",
        use_cpu=setup.device == "cpu",
        seed=training.seed,
        data_seed=training.seed,
        packing=packed,
        packing_strategy="bfd",
        padding_free=True,
        max_length=batches.packed_tokens if packed else None,
        pad_to_multiple_of=batches.pad_to_multiple_of,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=1,
        # transformers replaces NaN losses by the mean of the others unless told not to.
        logging_nan_inf_filter=False,
        eval_on_start=evaluate_first,
        eval_strategy="steps",
        eval_steps=training.evaluate_every_steps,
        save_strategy="steps",
        save_steps=training.save_every_steps,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=2 if setup.device == "cuda" else 0,
        dataloader_pin_memory=setup.device == "cuda",
        prediction_loss_only=True,
    )


def _load_base(job: TrainingJob, setup: Setup) -> PreTrainedModel:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if job.random_weights:
        config = AutoConfig.from_pretrained(job.base_dir, trust_remote_code=False, local_files_only=True)
        dtype = torch.bfloat16 if setup.precision == "bf16" else torch.float32
        with torch.device(setup.device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=setup.attention)
        return model
    dtype_name = "bfloat16" if setup.precision == "bf16" else "float32"
    model = load_model_folder(job.base_dir, dtype=dtype_name)  # type: ignore[arg-type]
    model.set_attn_implementation(setup.attention)
    return model


def _decoder_layers(model: PreTrainedModel) -> Any:
    layers = getattr(model.get_decoder(), "layers", None)
    if layers is None:
        raise TrainingError(
            f"{type(model).__name__} keeps its layers where this project does not look, so they cannot be compiled. "
            "Choose a decoder-only base such as Qwen2.5, Qwen3 or Llama."
        )
    return layers


def _has_bf16() -> bool:
    import torch

    return torch.cuda.get_device_capability()[0] >= 8


@contextlib.contextmanager
def quiet_libraries() -> Any:
    """Keep progress bars and advice of the libraries out of the lines that are parsed, and what no user can act on."""
    from datasets.utils import logging as datasets_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    datasets_logging.disable_progress_bar()
    with warnings.catch_warnings():
        # TRL 1.16 and peft 0.21 ask transformers 5.23 by names that it deprecates.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        yield
