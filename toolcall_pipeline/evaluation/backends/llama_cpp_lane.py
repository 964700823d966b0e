"""One llama.cpp context and the completions under way in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from toolcall_pipeline.evaluation.backends.llama_cpp_context import SequenceContext
from toolcall_pipeline.evaluation.backends.llama_cpp_model import ChatModel
from toolcall_pipeline.evaluation.backends.llama_cpp_sampling import TokenPicker
from toolcall_pipeline.evaluation.backends.protocol import Generation, Request, RequestSource


@dataclass
class _Completion:
    """One completion under way."""

    number: int
    prompt: list[int]
    limit: int
    picker: TokenPicker
    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def is_over(self) -> bool:
        return self.ended or len(self.tokens) >= self.limit


class Lane:
    """Decodes the sequences of one context together; a place that falls free is filled at once with the next request."""

    def __init__(self, model: ChatModel, *, context_tokens: int, sequences: int, threads: int) -> None:
        """Make a context.

        Args:
            model: Whose.
            context_tokens: Longest prompt and completion together, of each sequence.
            sequences: Completions decoded together.
            threads: Of the processor.

        Raises:
            EvaluationError: There is no memory for it.
        """
        self._model = model
        self._context_tokens = context_tokens
        self._context = SequenceContext(
            model.handle, context_tokens=context_tokens, sequences=sequences, threads=threads
        )
        self._sequences = sequences

    def generate(
        self, take: RequestSource, is_stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[int, Generation]]:
        """Yield generations as they end, until nothing is under way and nothing can be taken, or somebody stops it."""
        running: dict[int, _Completion] = {}
        try:
            while not is_stopped():
                while len(running) < self._sequences and (taken := take()) is not None:
                    refused = self._start(running, *taken)
                    if refused is not None:
                        yield taken[0], refused
                if not running:
                    return
                over = [sequence for sequence, completion in running.items() if completion.is_over]
                for sequence in over:
                    completion = running.pop(sequence)
                    completion.picker.close()
                    yield completion.number, self._read(completion)
                if not over:
                    self._advance(running)
        finally:
            for completion in running.values():
                completion.picker.close()

    def _start(self, running: dict[int, _Completion], number: int, request: Request) -> Generation | None:
        """Evaluate a prompt in a free sequence and pick its first token; return the error of one that does not fit."""
        prompt = self._model.render(request)
        room = self._context_tokens - len(prompt)
        if room < 1:
            error = f"the prompt has {len(prompt)} tokens, the context {self._context_tokens}"
            return Generation(raw="", prompt_tokens=len(prompt), error=error)
        picker = TokenPicker(request, self._model.vocabulary)
        completion = _Completion(number, prompt, min(request.max_new_tokens, room), picker)
        free = [sequence for sequence in range(self._sequences) if sequence not in running]
        sequence, logits = self._context.prefill(prompt, free)
        running[sequence] = completion
        self._add(completion, picker.pick(logits))
        return None

    def _advance(self, running: dict[int, _Completion]) -> None:
        """Decode one token of every running sequence."""
        self._close_gaps(running)
        completions = [running[sequence] for sequence in range(len(running))]
        rows = self._context.extend([completion.tokens[-1] for completion in completions])
        best = rows.argmax(axis=1).tolist()
        for completion, token, logits in zip(completions, best, rows, strict=True):
            self._add(completion, token if completion.picker.is_plain else completion.picker.pick(logits))

    def _close_gaps(self, running: dict[int, _Completion]) -> None:
        """Move running sequences until they are the first ones."""
        for gap in [sequence for sequence in range(len(running)) if sequence not in running]:
            last = max(running)
            self._context.copy(last, gap)
            running[gap] = running.pop(last)

    def _add(self, completion: _Completion, token: int) -> None:
        if self._model.ends_generation(token):
            completion.ended = True
        else:
            completion.tokens.append(token)

    def _read(self, completion: _Completion) -> Generation:
        return Generation(
            raw=self._model.text(completion.tokens, after=completion.prompt[-1]),
            prompt_tokens=len(completion.prompt),
            completion_tokens=len(completion.tokens),
            hit_token_limit=not completion.ended,
        )

    def close(self) -> None:
        """Free the context."""
        self._context.close()
