"""Any OpenAI-compatible endpoint: LM Studio, llama-server, vLLM, Ollama. Requests may run concurrently.

A server that is left to choose reads calls out of the text, and llama-server holds them to a grammar of the schemas:
what the model would have got wrong is not seen. So the tools are shown and `tool_choice` is `none`, which leaves the
text as it was written, wherever the server keeps the tools in the prompt then; one that does not is asked for `auto`.
Calls that come back read are written as `<tool_call>` blocks again, so that one reader serves every backend; what the
model wrote after them is lost there.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from toolcall_pipeline.artifacts import sha256_json
from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.backends.protocol import Generation, Request, RequestSource
from toolcall_pipeline.evaluation.cases import ModelIdentity

# 4,096 tokens at two a second; answers are not streamed, so nothing is heard before the last.
_ANSWER_SECONDS = 2_100.0
_CONNECT_SECONDS = 10.0
# A server that is busy or still loading says so; it is asked again, later each time.
_BUSY = (429, 503)
_BUSY_ATTEMPTS = 8
_MOST_SECONDS_BETWEEN = 60.0
# One request that a server cannot answer is that case's error; so many in a row are the server's.
_MOST_REFUSED_IN_A_ROW = 5


class OpenAiBackend:
    """Chat completions of one model behind a URL such as `http://127.0.0.1:1234/v1`."""

    def __init__(self, url: str, *, concurrency: int = 1, model: str | None = None, as_served: bool = False) -> None:
        """Connect.

        Args:
            url: With or without `/v1`; a model name may follow after `#`.
            concurrency: Requests at a time.
            model: Name the endpoint knows; its first one where None.
            as_served: Let the server read calls, as its clients do, instead of asking for the text.

        Raises:
            EvaluationError: Nobody answers there, or the model is not served there.
        """
        import httpx

        base, _, fragment = url.partition("#")
        base = base.rstrip("/")
        self._base = base if base.endswith("/v1") else f"{base}/v1"
        self._concurrency = concurrency
        is_local = urlsplit(self._base).hostname in ("localhost", "127.0.0.1", "::1")
        # A proxy of the environment is for the way out.
        self._client = httpx.Client(
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS), trust_env=not is_local
        )
        self._tool_choice: str | None = "auto" if as_served else None
        self._choosing = threading.Lock()
        self._refused_in_a_row = 0
        self._model, details = self._find_model(model or fragment)
        self.identity = ModelIdentity(
            name=self._model,
            sha256=sha256_json([self._base, self._model, details]),
            path=self._base,
            backend="openai",
        )

    def _find_model(self, wanted: str) -> tuple[str, Any]:
        """Return the name of the model to ask, and what llama-server tells of its file."""
        import httpx

        try:
            response = self._client.get(f"{self._base}/models")
            if wanted and response.status_code == httpx.codes.NOT_FOUND:
                return wanted, None
            response.raise_for_status()
            listed = {str(entry["id"]): entry.get("meta") for entry in response.json()["data"]}
            name = wanted or next(iter(listed), "")
            problem = "lists no model" if not listed else f"lists {', '.join(sorted(listed))}, not {name}"
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
            listed, name, problem = {}, wanted, f"does not list models ({type(error).__name__}: {error})"
        if name in listed:
            return name, listed[name]
        self._client.close()
        raise EvaluationError(
            f"{self._base}/models {problem}. Start the server, and name one of its models after the URL: "
            "http://127.0.0.1:1234/v1#name."
        )

    def generate(self, take: RequestSource) -> Iterator[tuple[int, Generation]]:
        """Yield generations as they come, up to `concurrency` requests being answered at the same time.

        Raises:
            EvaluationError: The endpoint is gone, or refuses one request after the other.
        """
        answers: queue.SimpleQueue[tuple[int, Generation | Exception]] = queue.SimpleQueue()

        def answer(number: int, request: Request) -> None:
            try:
                answers.put((number, self._generate(request)))
            except Exception as error:  # noqa: BLE001 - raised again where it is waited for
                answers.put((number, error))

        under_way = 0
        while True:
            while under_way < self._concurrency and (taken := take()) is not None:
                # A daemon: whoever stops the evaluation does not wait for an answer that takes half an hour.
                threading.Thread(target=answer, args=taken, daemon=True).start()
                under_way += 1
            if not under_way:
                return
            number, outcome = answers.get()
            under_way -= 1
            if isinstance(outcome, Exception):
                raise outcome
            yield number, outcome

    def _generate(self, request: Request) -> Generation:
        if request.grammar:
            raise EvaluationError(
                "An endpoint takes no grammar of ours; measure constrained decoding on the GGUF file."
            )
        body: dict[str, Any] = {
            "messages": _messages(request.messages),
            "temperature": request.temperature,
            "seed": request.seed,
            "max_tokens": request.max_new_tokens,
        }
        if request.tools:
            body |= {"tools": list(request.tools), "tool_choice": self._choose(body, request)}
        return self._ask(body)

    def _choose(self, body: dict[str, Any], request: Request) -> str:
        """Return `none` where the server shows the tools all the same, else `auto`; asked once, of two prompts."""
        with self._choosing:
            if self._tool_choice is None:
                one = {**body, "max_tokens": 1}
                without = self._ask(one)
                shown = self._ask({**one, "tools": list(request.tools), "tool_choice": "none"})
                if without.error or shown.error:
                    return "none"
                self._tool_choice = "none" if shown.prompt_tokens > without.prompt_tokens else "auto"
            return self._tool_choice

    def _ask(self, body: dict[str, Any]) -> Generation:
        """Return the answer to one request; an error of that request alone is the generation's."""
        import httpx

        try:
            response = self._post({"model": self._model, "stream": False, **body})
            if response.status_code == 400 and "context" in response.text.lower():
                return Generation(raw="", error="the prompt does not fit the endpoint's context")
            if response.status_code == 500 and "parse" in response.text.lower():
                # llama-server answers so where a completion begins a call that it cannot read.
                return Generation(raw="<tool_call>", completion_tokens=0)
            if response.is_error:
                refusal = f"HTTP {response.status_code}, {response.text[:200]!r}"
                if response.status_code in (400, 413, 422, 500) and not self._is_refusing():
                    return Generation(raw="", error=f"the endpoint answered {refusal}")
                raise ValueError(refusal)
            generation = _generation(response.json())
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise EvaluationError(
                f"{self._base}/chat/completions failed ({type(error).__name__}: {str(error)[:300]}). Expected an "
                "OpenAI chat completion; check that the server runs with tool templates on (llama-server --jinja). "
                "What was answered before is kept: the same command goes on from there."
            ) from error
        self._refused_in_a_row = 0
        return generation

    def _post(self, body: dict[str, Any]) -> Any:
        """Return the response; a server that is busy is asked again, when it says or later each time."""
        attempt = 1
        while True:
            response = self._client.post(f"{self._base}/chat/completions", json=body)
            if response.status_code not in _BUSY or attempt == _BUSY_ATTEMPTS:
                return response
            said = response.headers.get("retry-after", "")
            time.sleep(min(_MOST_SECONDS_BETWEEN, float(said) if said.isdecimal() else 2.0**attempt))
            attempt += 1

    def _is_refusing(self) -> bool:
        self._refused_in_a_row += 1
        return self._refused_in_a_row >= _MOST_REFUSED_IN_A_ROW

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages in OpenAI's wire form: arguments as JSON strings, calls and results tied by ids."""
    wire: list[dict[str, Any]] = []
    waiting: list[str] = []
    number = 0
    for message in messages:
        item = {"role": message["role"], "content": message.get("content") or ""}
        calls = message.get("tool_calls") or ()
        if calls:
            item["tool_calls"] = []
            for call in calls:
                number += 1
                waiting.append(f"call_{number}")
                function = {
                    "name": call["function"]["name"],
                    "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                }
                item["tool_calls"].append({"id": waiting[-1], "type": "function", "function": function})
        elif message["role"] == "tool":
            item["tool_call_id"] = waiting.pop(0) if waiting else "call_0"
        wire.append(item)
    return wire


def _generation(answer: dict[str, Any]) -> Generation:
    choice = answer["choices"][0]
    message, usage = choice["message"], answer.get("usage") or {}
    if not isinstance(message, dict) or not isinstance(usage, dict):
        raise TypeError("message and usage are no objects")
    parts: list[str] = []
    if message.get("reasoning_content"):
        parts.append(f"<think>{message['reasoning_content']}</think>")
    parts.append(message.get("content") or "")
    for call in message.get("tool_calls") or ():
        name, arguments = json.dumps(call["function"]["name"]), call["function"]["arguments"]
        arguments = arguments if isinstance(arguments, str) else json.dumps(arguments)
        parts.append(f'\n<tool_call>\n{{"name": {name}, "arguments": {arguments or "{}"}}}\n</tool_call>')
    return Generation(
        raw="".join(parts).lstrip("\n"),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
        hit_token_limit=choice.get("finish_reason") == "length",
    )
