"""A Hugging Face folder as a model to evaluate: alone and in batches, seeded, from the command's own entry."""

import pytest

from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.backends import Request, generate_all, open_backend
from toolcall_pipeline.evaluation.backends.transformers_backend import TransformersBackend
from toolcall_pipeline.evaluation.commands import evaluate
from toolcall_pipeline.presets import resolve_configuration
from toolcall_pipeline.settings import Settings


def ask(text: str, **options) -> Request:
    given = {"tools": (), "seed": 0, "temperature": 0.0, "max_new_tokens": 6, **options}
    return Request(messages=({"role": "user", "content": text},), **given)


def answers(folder, requests, **options):
    backend = open_backend(folder, context_tokens=options.pop("context_tokens", 256), **options)
    try:
        return generate_all(backend, requests)
    finally:
        backend.close()


def test_a_batch_answers_what_each_prompt_is_answered_alone(tiny_base):
    requests = [ask("one"), ask("a much longer prompt than the one before it"), ask("three " * 20), ask("four")]
    alone = answers(tiny_base, requests)
    assert answers(tiny_base, requests, sequences=3) == alone
    assert [answer.completion_tokens for answer in alone] == [6, 6, 6, 6]
    assert all(answer.hit_token_limit for answer in alone)
    assert len({answer.prompt_tokens for answer in alone}) > 2


def test_dice_follow_the_seed_and_mixed_requests_keep_their_numbers(tiny_base):
    requests = [ask("go", temperature=1e4, seed=seed) for seed in (1, 2, 1)] + [ask("go")]
    first, second = (answers(tiny_base, requests, sequences=4) for _ in range(2))
    assert first == second
    assert first[0] != first[1]
    assert first[3] == answers(tiny_base, [ask("go")])[0]


def test_a_prompt_that_does_not_fit_is_an_error_of_that_case_only(tiny_base):
    long, short = answers(tiny_base, [ask("word " * 400), ask("go")], sequences=2)
    assert "the context 256" in long.error
    assert short.error is None


def test_a_grammar_is_refused_and_a_folder_without_a_model_named(tiny_base, tmp_path):
    with pytest.raises(EvaluationError, match="measured on the GGUF file"):
        answers(tiny_base, [ask("go", grammar=True)])
    with pytest.raises(EvaluationError, match=r"neither config\.json nor"):
        open_backend(tmp_path, context_tokens=64)


def test_the_command_runs_a_folder_and_goes_on_from_its_log(tiny_base, tmp_path, monkeypatch):
    few = {"suites": ["D"], "cases_per_suite": {"D": 3}, "max_new_tokens": 4, "context_tokens": 4096, "sequences": 2}
    configuration = resolve_configuration("smoke", {"evaluation": few})
    settings = Settings(home=tmp_path / "home")
    run = evaluate(settings, model=str(tiny_base), configuration=configuration, backend="transformers")
    assert run.model.backend == "transformers"
    assert len(run.model.sha256) == 64
    assert [result.error for result in run.results] == [None, None, None]
    assert {turn.completion_tokens for result in run.results for turn in result.turns} == {4}
    monkeypatch.setattr(TransformersBackend, "_generate", None)
    again = evaluate(settings, model=str(tiny_base), configuration=configuration)
    assert again.results == run.results
