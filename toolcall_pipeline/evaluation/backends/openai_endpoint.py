"""Any OpenAI-compatible endpoint: LM Studio, llama-server, vLLM, Ollama. Requests may run concurrently.

A chat endpoint reads calls out of the text itself; they are written back as `<tool_call>` blocks, so that one reader
and one set of outcomes serves every backend. What a model writes after a call is lost there: `call_shape` is judged
in process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from toolcall_pipeline.artifacts import sha256_text
from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.backends.protocol import Generation, Request, RequestSource
from toolcall_pipeline.evaluation.cases import ModelIdentity

# 4,096 tokens at two a second; answers are not streamed, so nothing is heard before the last.
_ANSWER_SECONDS = 2_100.0
_CONNECT_SECONDS = 10.0


class OpenAiBackend:
    """Chat completions of one model behind a URL such as `http://127.0.0.1:1234/v1`."""

    def __init__(self, url: str, *, concurrency: int = 1, model: str | None = None) -> None:
        """Connect.

        Args:
            url: With or without `/v1`; a model name may follow after `#`.
            concurrency: Requests at a time.
            model: Name the endpoint knows; its first one where None.

        Raises:
            EvaluationError: Nobody answers there.
        """
        import httpx

        base, _, fragment = url.partition("#")
        base = base.rstrip("/")
        self._base = base if base.endswith("/v1") else f"{base}/v1"
        self._concurrency = concurrency
        self._client = httpx.Client(timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS))
        self._model = model or fragment or self._first_model()
        self.identity = ModelIdentity(
            name=self._model, sha256=sha256_text(f"{self._base} {self._model}"), path=self._base, backend="openai"
        )

    def _first_model(self) -> str:
        import httpx

        try:
            response = self._client.get(f"{self._base}/models")
            response.raise_for_status()
            return str(response.json()["data"][0]["id"])
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            self._client.close()
            raise EvaluationError(
                f"{self._base}/models does not list a model ({type(error).__name__}: {error}). Start the server, or "
                "name the model after the URL: http://127.0.0.1:1234/v1#name."
            ) from error

    def generate(self, take: RequestSource) -> Iterator[tuple[int, Generation]]:
        """Yield generations as they come, up to `concurrency` requests being answered at the same time.

        Raises:
            EvaluationError: The endpoint is gone, or refuses.
        """
        asked: dict[Future[Generation], int] = {}
        with ThreadPoolExecutor(max_workers=self._concurrency) as pool:
            try:
                while True:
                    while len(asked) < self._concurrency and (taken := take()) is not None:
                        number, request = taken
                        asked[pool.submit(self._generate, request)] = number
                    if not asked:
                        return
                    for future in wait(asked, return_when=FIRST_COMPLETED).done:
                        yield asked.pop(future), future.result()
            finally:
                for future in asked:
                    future.cancel()

    def _generate(self, request: Request) -> Generation:
        import httpx

        if request.grammar:
            raise EvaluationError(
                "An endpoint takes no grammar of ours; measure constrained decoding on the GGUF file."
            )
        body: dict[str, Any] = {
            "model": self._model,
            "messages": _messages(request.messages),
            "temperature": request.temperature,
            "seed": request.seed,
            "max_tokens": request.max_new_tokens,
            "stream": False,
        }
        if request.tools:
            body |= {"tools": list(request.tools), "tool_choice": "auto"}
        try:
            response = self._client.post(f"{self._base}/chat/completions", json=body)
            if response.status_code == 400 and "context" in response.text.lower():
                return Generation(raw="", error="the prompt does not fit the endpoint's context")
            if response.status_code == 500 and "parse" in response.text.lower():
                # llama-server answers so where a completion begins a call that it cannot read.
                return Generation(raw="<tool_call>", completion_tokens=0)
            if response.is_error:
                raise ValueError(f"HTTP {response.status_code}, {response.text[:200]!r}")
            return _generation(response.json())
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise EvaluationError(
                f"{self._base}/chat/completions failed ({type(error).__name__}: {str(error)[:300]}). Expected an "
                "OpenAI chat completion; check that the server runs with tool templates on (llama-server --jinja)."
            ) from error

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
