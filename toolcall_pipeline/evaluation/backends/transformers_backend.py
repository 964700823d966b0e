"""A Hugging Face folder: base, adapter or merged model, batched, through the folder's own template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import sha256_file, sha256_text
from toolcall_pipeline.dataset.templates import serving_template
from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.backends.protocol import Generation, Request, RequestSource
from toolcall_pipeline.evaluation.cases import ModelIdentity

_CPU_ROWS = 4
_GPU_ROWS = 32


class TransformersBackend:
    """Greedy or sampled generation of left-padded batches."""

    def __init__(self, path: Path, *, context_tokens: int, batch_rows: int = 1) -> None:
        """Load a folder; an adapter's folder loads its base too.

        Raises:
            EvaluationError: It does not load.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise EvaluationError(
                f"{path} is no model folder: it has neither config.json nor adapter_config.json. Give a Hugging Face "
                "folder, or a GGUF file."
            )
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._batch_rows = batch_rows if batch_rows > 1 else (_GPU_ROWS if self._device == "cuda" else 1)
        dtype = torch.bfloat16 if self._device == "cuda" else torch.float32
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False)
            loader: Any = AutoModelForCausalLM
            if (path / "adapter_config.json").is_file():
                from peft import AutoPeftModelForCausalLM

                loader = AutoPeftModelForCausalLM
            model = loader.from_pretrained(path, dtype=dtype, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise EvaluationError(f"transformers cannot load {path} ({error}). Make the model again.") from error
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = model.to(self._device).eval()
        self._template = serving_template(self._tokenizer)
        self._context_tokens = context_tokens
        self._end_ids = self._end_token_ids()
        self.identity = ModelIdentity(
            name=path.name, sha256=_folder_sha256(path), path=str(path), quantisation=None, backend="transformers"
        )

    def _end_token_ids(self) -> list[int]:
        """Return every token that ends a turn, as the generation configuration and the tokenizer say."""
        configured = self._model.generation_config.eos_token_id
        ids = set(configured if isinstance(configured, list) else [configured])
        ids |= {self._tokenizer.eos_token_id, self._tokenizer.convert_tokens_to_ids("<|im_end|>")}
        unknown = self._tokenizer.unk_token_id
        return sorted(token for token in ids if isinstance(token, int) and (token != unknown or unknown is None))

    def generate(self, take: RequestSource) -> Iterator[tuple[int, Generation]]:
        """Yield generations, batch by batch."""
        while True:
            taken = list(islice(iter(take, None), self._batch_rows))
            if not taken:
                return
            # Rows of one batch share temperature and seed; the sort keeps the order within a group.
            for _, group in groupby(sorted(taken, key=_dice), key=_dice):
                numbers, requests = zip(*group, strict=True)
                yield from zip(numbers, self._generate_batch(requests), strict=True)

    def _generate_batch(self, requests: Sequence[Request]) -> list[Generation]:
        prompts = [self._encode(request) for request in requests]
        results: list[Generation | None] = [None] * len(requests)
        fitting: list[int] = []
        for index, prompt in enumerate(prompts):
            if len(prompt) >= self._context_tokens:
                error = f"the prompt has {len(prompt)} tokens, the context {self._context_tokens}"
                results[index] = Generation(raw="", prompt_tokens=len(prompt), error=error)
            else:
                fitting.append(index)
        if fitting:
            made = self._generate([prompts[index] for index in fitting], requests[fitting[0]])
            for index, generation in zip(fitting, made, strict=True):
                results[index] = generation
        return [result for result in results if result is not None]

    def _encode(self, request: Request) -> list[int]:
        if request.grammar:
            raise EvaluationError("Constrained decoding is measured on the GGUF file, not on a Hugging Face folder.")
        text = self._template.render(list(request.messages), list(request.tools) or None, add_generation_prompt=True)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _generate(self, prompts: list[list[int]], request: Request) -> list[Generation]:
        import torch

        longest = max(map(len, prompts))
        limit = min(request.max_new_tokens, self._context_tokens - longest)
        padding = self._tokenizer.pad_token_id
        rows = [[padding] * (longest - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        torch.manual_seed(request.seed)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if request.temperature > 0:
            sampling = {"do_sample": True, "temperature": request.temperature, "top_p": 0.95, "top_k": 40}
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=torch.tensor(rows, device=self._device),
                attention_mask=torch.tensor(mask, device=self._device),
                max_new_tokens=limit,
                eos_token_id=self._end_ids,
                pad_token_id=padding,
                **sampling,
            )
        return [self._read(prompts[index], output[index, longest:].tolist(), limit) for index in range(len(prompts))]

    def _read(self, prompt: list[int], tokens: list[int], limit: int) -> Generation:
        end = next((index for index, token in enumerate(tokens) if token in self._end_ids), None)
        kept = tokens[:end] if end is not None else tokens
        return Generation(
            raw=str(self._tokenizer.decode(kept, skip_special_tokens=False)),
            prompt_tokens=len(prompt),
            completion_tokens=len(kept),
            hit_token_limit=end is None and len(kept) >= limit,
        )

    def close(self) -> None:
        """Free the model."""
        import gc

        import torch

        del self._model
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()


def _dice(taken: tuple[int, Request]) -> tuple[float, int]:
    return taken[1].temperature, taken[1].seed


def _folder_sha256(path: Path) -> str:
    """Return a hash over the folder's weights, configuration and tokenizer."""
    files = [file for file in sorted(path.iterdir()) if file.suffix in (".safetensors", ".json", ".jinja")]
    return sha256_text("".join(f"{file.name}\0{sha256_file(file)}\n" for file in files))
