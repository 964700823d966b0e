"""Servers behind a URL: the text arrives as it was written, and a server that fails is told apart from a case that does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from toolcall_pipeline.cli import app
from toolcall_pipeline.errors import EvaluationError, UsageError
from toolcall_pipeline.evaluation.backends import Request, backend_kind, generate_all, open_backend
from toolcall_pipeline.evaluation.backends.openai_endpoint import OpenAiBackend
from toolcall_pipeline.evaluation.cases import SuiteRun
from toolcall_pipeline.evaluation.evaluating import run_suite
from toolcall_pipeline.evaluation.suites.freeze import FrozenSuite
from toolcall_pipeline.evaluation.suites.single_turn import single_turn_cases
from toolcall_pipeline.gates.evaluate_command import evaluate_and_judge
from toolcall_pipeline.presets import PRESETS
from toolcall_pipeline.settings import Settings

Body = dict[str, Any]
Answer = tuple[int, Any]
TOOL = {"type": "function", "function": {"name": "Read", "parameters": {"type": "object"}}}
WRITTEN = '<tool_call>\n{"name": "Read", "arguments": {}}\n</tool_call>\nuser\n'


def completion(text: str, body: Body, *, keeps_tools: bool = True, **message: Any) -> Answer:
    shows_tools = "tools" in body and (keeps_tools or body["tool_choice"] != "none")
    usage = {"prompt_tokens": 100 if shows_tools else 10, "completion_tokens": 3}
    choice = {"message": {"content": text, **message}, "finish_reason": "length" if body["max_tokens"] < 5 else "stop"}
    return 200, {"choices": [choice], "usage": usage}


@contextmanager
def server(
    answer: Callable[[Body], Answer], models: tuple[str, ...] = ("small", "large")
) -> Iterator[tuple[str, list]]:
    """Serve chat completions; the second value collects what was asked. An answer of None drops the connection."""
    asked: list[Body] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: Any) -> None:
            pass

        def reply(self, status: int, value: Any) -> None:
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.reply(200, {"data": [{"id": name, "meta": {"size": len(name)}} for name in models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            status, value = answer(body)
            if status:
                self.reply(status, value)

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{served.server_port}", asked
    finally:
        served.shutdown()
        thread.join()
        served.server_close()


def request(text: str = "hi", *, tools: bool = True, **fields: Any) -> Request:
    fields = {"seed": 7, "temperature": 0.2, "max_new_tokens": 64, **fields}
    return Request(messages=({"role": "user", "content": text},), tools=(TOOL,) if tools else (), **fields)


def generations(url: str, *requests: Request, **options: Any) -> list[Any]:
    backend = OpenAiBackend(url, **options)
    try:
        return generate_all(backend, requests)
    finally:
        backend.close()


def test_the_text_arrives_as_it_was_written_where_the_server_can_leave_it() -> None:
    with server(lambda body: completion(WRITTEN, body)) as (url, asked):
        first, second = generations(url, request(), request("again"))
    assert (first.raw, second.raw) == (WRITTEN, WRITTEN)
    assert [body["tool_choice"] for body in asked if body["max_tokens"] > 1] == ["none", "none"]
    assert len(asked) == 4  # two prompts show once what the server does
    assert asked[-1]["tools"] == [TOOL]
    assert (asked[-1]["seed"], asked[-1]["temperature"], asked[-1]["max_tokens"]) == (7, 0.2, 64)


def test_a_conversation_with_calls_goes_out_in_openais_form_and_calls_come_back_as_blocks() -> None:
    call = {"type": "function", "function": {"name": "Read", "arguments": {"file_path": "b"}}}
    messages = (
        {"role": "user", "content": "read"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "text"},
    )
    answered = {"function": {"name": "Read", "arguments": '{"file_path": "a.py"}'}}
    asks = [Request(messages=messages, tools=(TOOL,), seed=3, temperature=0.0, max_new_tokens=9)] * 3
    with server(lambda body: completion("", body, tool_calls=[answered])) as (url, asked):
        first, *others = generations(url, *asks, concurrency=3)
    assert len(others) == 2
    assert first.raw == '<tool_call>\n{"name": "Read", "arguments": {"file_path": "a.py"}}\n</tool_call>'
    assert (first.prompt_tokens, first.completion_tokens) == (100, 3)
    wire = asked[-1]["messages"]
    assert wire[1]["tool_calls"][0]["function"]["arguments"] == '{"file_path": "b"}'
    assert wire[2]["tool_call_id"] == wire[1]["tool_calls"][0]["id"]


@pytest.mark.parametrize(
    "answer",
    [
        (500, b'{"error": "out of memory"}'), (404, b""), (200, b"<html>"), (200, b"[]"), (200, b'{"choices": []}'),
        (200, b'{"choices": [{"message": null}]}'), (200, b'{"choices": [{"message": {}}], "usage": 7}'),
        (200, b'{"choices": [{"message": {"tool_calls": [{"function": null}]}}]}'), (200, b"\xff\xfe"),
    ],
)  # fmt: skip
def test_an_answer_that_is_something_else_is_an_error_that_says_what(answer: Answer) -> None:
    with server(lambda _: answer) as (url, _), pytest.raises(EvaluationError, match="/chat/completions failed"):
        # One 500 may be the request's; five in a row are the server's.
        generations(url, *[request(tools=False)] * 5)


def test_a_server_that_is_not_there_is_an_error_with_a_way_out() -> None:
    with pytest.raises(EvaluationError, match="Start the server"):
        open_backend("http://127.0.0.1:9/v1", context_tokens=64)


def test_a_server_that_hides_tools_it_may_not_use_is_left_to_choose() -> None:
    call = {"function": {"name": "Read", "arguments": '{"file_path": "a.py"}'}}
    answer = lambda body: completion("I look.", body, keeps_tools=False, tool_calls=[call])  # noqa: E731
    with server(answer) as (url, asked):
        (found,) = generations(url, request())
    assert asked[-1]["tool_choice"] == "auto"
    assert found.raw == 'I look.\n<tool_call>\n{"name": "Read", "arguments": {"file_path": "a.py"}}\n</tool_call>'


def test_as_served_the_server_reads_calls_and_no_prompt_is_tried() -> None:
    with server(lambda body: completion("x", body)) as (url, asked):
        generations(url, request(), as_served=True)
        generations(url, request(tools=False))
    assert [body.get("tool_choice") for body in asked] == ["auto", None]


def test_thought_and_the_token_limit_are_told() -> None:
    with server(lambda body: completion("So.", body, reasoning_content="Hm.")) as (url, _):
        (found,) = generations(url, request(tools=False, max_new_tokens=3))
    assert (found.raw, found.hit_token_limit) == ("<think>Hm.</think>So.", True)


def test_a_busy_server_is_asked_again() -> None:
    waiting = [429, 503, 429]
    answer = lambda body: (waiting.pop(), {}) if waiting else completion("Done.", body)  # noqa: E731
    with server(answer) as (url, asked):
        (found,) = generations(url, request(tools=False))
    assert (found.raw, len(asked)) == ("Done.", 4)


def test_a_request_that_the_server_cannot_answer_is_an_error_of_that_case_alone() -> None:
    def answer(body: Body) -> Answer:
        return (500, "boom") if body["messages"][0]["content"] == "bad" else completion("Done.", body)

    with server(answer) as (url, _):
        found = generations(url, *(request(text, tools=False) for text in ("ok", "bad", "ok")), concurrency=2)
    assert [one.raw for one in found] == ["Done.", "", "Done."]
    assert found[1].error == "the endpoint answered HTTP 500, '\"boom\"'"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param((500, "boom"), "HTTP 500", id="fails always"),
        pytest.param((429, "slow down"), "HTTP 429", id="stays busy"),
        pytest.param((401, "who are you"), "HTTP 401", id="refuses"),
        pytest.param((200, {"choices": []}), "IndexError", id="no choice"),
        pytest.param((200, [1]), "TypeError", id="no object"),
        pytest.param((200, {"choices": [{"message": None}]}), "TypeError", id="no message"),
        pytest.param((0, None), "RemoteProtocolError", id="hangs up"),
    ],
)
def test_a_server_that_fails_ends_the_evaluation(answer: Answer, said: str) -> None:
    with server(lambda _body: answer) as (url, _), pytest.raises(EvaluationError, match=said):
        generations(url, *(request(tools=False) for _ in range(20)))


def test_what_was_answered_before_a_server_died_is_not_asked_again(tmp_path: Path) -> None:
    cases = tuple(case for case in single_turn_cases((), 60) if case.stratum == "no_tool")[:6]
    suite = FrozenSuite("1", "0" * 64, False, cases, {}, Path())
    answered: list[str] = []
    dies_at = [4]

    def answer(body: Body) -> Answer:
        if len(answered) in dies_at:
            return 0, None
        answered.append(body["messages"][-1]["content"])
        return completion("It is so.", body)

    def run(url: str) -> SuiteRun:
        backend = OpenAiBackend(url, as_served=True)
        try:
            return run_suite(backend, suite, PRESETS["full"].evaluation, suites=["D"], log_dir=tmp_path)
        finally:
            backend.close()

    with server(answer) as (url, _):
        with pytest.raises(EvaluationError, match="the same command goes on from there"):
            run(url)
        dies_at.clear()
        assert [result.outcome for result in run(url).results] == ["pass"] * 6
    assert len(answered) == len(set(answered)) == 6


def test_a_model_that_is_not_served_is_refused_and_the_first_one_is_the_default() -> None:
    with server(lambda body: completion("x", body)) as (url, asked):
        with pytest.raises(EvaluationError, match="lists large, small, not other"):
            OpenAiBackend(f"{url}#other")
        backend = OpenAiBackend(f"{url}/v1/")
        named = OpenAiBackend(f"{url}#large")
        assert (backend.identity.name, named.identity.name) == ("small", "large")
        assert backend.identity.sha256 != named.identity.sha256
        generate_all(named, [request(tools=False)])
        assert asked[-1]["model"] == "large"
        for opened in (backend, named):
            opened.close()
    with server(lambda body: completion("x", body), models=()) as (url, _):
        with pytest.raises(EvaluationError, match="lists no model"):
            OpenAiBackend(url)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with server(lambda body: completion("Done.", body)) as (url, _):
        assert generations(url, request())[0].raw == "Done."


def test_the_backend_is_told_from_the_models_form(tmp_path: Path, settings: Settings) -> None:
    forms = {"http://h:1/v1": "openai", "m.gguf": "llama-cpp", "a.jsonl": "scripted", str(tmp_path): "transformers"}
    assert {model: backend_kind(model) for model in forms} == forms
    assert backend_kind("m.gguf", "scripted:x.jsonl") == "scripted"
    with pytest.raises(UsageError, match="no backend 'vllm'"):
        open_backend("m.gguf", backend="vllm", context_tokens=10)
    with pytest.raises(UsageError, match="takes no grammar"):
        evaluate_and_judge(settings, model="http://127.0.0.1:9", constrained=True)


def test_who_stops_an_evaluation_keeps_what_was_answered(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLCALL_PIPELINE_HOME", str(settings.home))
    asked: list[str] = []
    started: list[subprocess.Popen[str]] = []
    stopped = threading.Event()

    def answer(body: Body) -> Answer:
        if len(asked) == 3 and not stopped.is_set():
            started[0].send_signal(signal.SIGINT)
            stopped.wait(timeout=30)  # an answer that takes its time is not waited for
            return 0, None
        asked.append(body["messages"][-1]["content"])
        return completion("Hm.", {**body, "tools": []})

    with server(answer) as (url, _):
        command = ["evaluate", "--model", url, "--suite", "V"]
        # A process of its own: that is what Ctrl-C stops. It inherits this one's way with SIGINT, and a shell that starts
        # tests in the background has told them to ignore it.
        inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "toolcall_pipeline.cli", *command],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        signal.signal(signal.SIGINT, inherited)
        stdout, stderr = started[0].communicate(timeout=60)
        stopped.set()
        assert (started[0].returncode, stdout) == (130, ""), stderr
        assert stderr == "Stopped. Every case that was answered is kept: the same command goes on from there.\n"
        assert CliRunner().invoke(app, command).exit_code == 0
    assert len(asked) == 600 + 2 * 2  # beside the cases, two prompts a run that show what the server does
    assert len(set(asked)) == 600
