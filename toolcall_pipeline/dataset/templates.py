"""Chat templates: what serves, and the same with `{% generation %}` markers for training.

One renderer for training, gates and evaluation. Templates are untrusted text and run in a sandbox that is set up as
transformers sets up its own (checked by a test): same filters, same whitespace rules, same JSON.

The training template is made from the serving template by known replacements (`_MARKINGS`), never kept as a second
text that could drift, and is used only where it renders the probes byte for byte as the serving template does. Any
other template is trained through the serving template itself: the span of a turn is what follows the prompt that
serving would have rendered for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes

from toolcall_pipeline.artifacts import sha256_text
from toolcall_pipeline.errors import DatasetError

if TYPE_CHECKING:
    from jinja2.parser import Parser
    from transformers import PreTrainedTokenizerBase

DEFAULT_SYSTEM_PROMPT = "You are a coding assistant with access to tools."
Span = tuple[int, int]
# A template is someone else's program: whatever it raises is about the template.
_TEMPLATE_FAULTS = (
    jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip


def system_prompt(working_directory: str | None) -> str:
    """Return the system message of every row and case; paths in calls are grounded in its working directory."""
    if not working_directory:
        return DEFAULT_SYSTEM_PROMPT
    return f"{DEFAULT_SYSTEM_PROMPT}\nWorking directory: {working_directory}"


def hermes_template() -> str:
    """Return the serving template given to bases that come without one for tools (ChatML, Hermes-style calls)."""
    folder = resources.files("toolcall_pipeline.dataset") / "chat_templates"
    return (folder / "hermes.jinja").read_text(encoding="utf-8")


class _GenerationExtension(jinja2.ext.Extension):
    """Record where `{% generation %}` blocks land in the rendered text."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance-independent set

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_record"), [], [], body).set_lineno(line)

    def _record(self, caller: Any) -> str:
        text = caller()
        tracker = _TRACKER.get()
        if tracker is not None:
            tracker.spans.append((tracker.length, tracker.length + len(text)))
        return text


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox; it finds the fields of plain messages without first raising for the attribute they are not."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj and attribute not in _DICT_ATTRIBUTES:
            return obj[attribute]
        return super().getattr(obj, attribute)


_DICT_ATTRIBUTES = frozenset(dir(dict))


@dataclass
class _Tracker:
    """How much was rendered so far, and the spans of generation blocks."""

    length: int
    spans: list[Span]


_TRACKER: ContextVar[_Tracker | None] = ContextVar("span_tracker", default=None)
"""Of the rendering that runs in this thread: compiled templates are shared."""


class RenderedTool(dict[str, Any]):
    """A tool that keeps its JSON: the same sixteen schemas are rendered into thousands of rows."""

    @cached_property
    def as_json(self) -> str:
        """Return what `tojson` gives."""
        return json.dumps(self, ensure_ascii=False)


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(value, RenderedTool) and (indent, separators, sort_keys, ensure_ascii) == (None, None, False, False):
        return value.as_json
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=16)
def _compile(text: str) -> jinja2.Template:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationExtension, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    try:
        return environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise DatasetError(f"The chat template does not parse (line {error.lineno}: {error.message}).") from error


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template and the special tokens it may name.

    Attributes:
        text: Jinja source.
        bos_token, eos_token: As the tokenizer names them; `eos_token` ends a turn.
    """

    text: str
    bos_token: str = ""
    eos_token: str = "<|im_end|>"

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the source."""
        return sha256_text(self.text)

    @cached_property
    def has_markers(self) -> bool:
        """Return whether the source marks the assistant's turns."""
        return "endgeneration" in self.text

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """Return the text a model is given.

        Args:
            messages: As `rows.template_messages` gives them.
            tools: OpenAI function tools in the order offered; None or empty offers none.
            add_generation_prompt: End with the header of the assistant's turn.

        Raises:
            DatasetError: The template refuses the messages, or tries what the sandbox forbids.
        """
        return "".join(self._blocks(messages, tools, add_generation_prompt))

    def render_marked(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None = None
    ) -> tuple[str, list[Span]]:
        """Return the text and the character spans of the marked turns, in order.

        Raises:
            DatasetError: As `render`, or the template has no markers.
        """
        if not self.has_markers:
            raise DatasetError("The chat template has no {% generation %} markers; use TrainingTemplate.render_spans.")
        tracker = _Tracker(0, [])
        token = _TRACKER.set(tracker)
        blocks = []
        try:
            for block in self._blocks(messages, tools, False):
                blocks.append(block)
                tracker.length += len(block)
        finally:
            _TRACKER.reset(token)
        return "".join(blocks), tracker.spans

    def _blocks(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None, add_generation_prompt: bool
    ) -> Iterator[str]:
        try:
            yield from _compile(self.text).generate(
                messages=list(messages),
                tools=list(tools) if tools else None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
            )
        except _TEMPLATE_FAULTS as error:
            raise DatasetError(
                f"The chat template {self.sha256[:12]} does not render {len(messages)} messages "
                f"(roles {[message.get('role') for message in messages][:8]}): {type(error).__name__}: {error}"
            ) from error


def serving_template(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """Return the template a base serves with: its tokenizer's own.

    Raises:
        DatasetError: The tokenizer has none.
    """
    text = tokenizer.chat_template
    if isinstance(text, dict):
        text = text.get("tool_use") or text.get("default")
    if not text:
        raise DatasetError(
            f"The tokenizer {tokenizer.name_or_path!r} has no chat template. Choose an instruction-tuned base."
        )
    end = tokenizer.eos_token or "<|im_end|>"
    # A base model's `eos_token` may end documents while its template ends turns with ChatML's token.
    if "<|im_end|>" in text:
        end = "<|im_end|>"
    return ChatTemplate(text, str(tokenizer.bos_token or ""), str(end))


@dataclass(frozen=True)
class TrainingTemplate:
    """The serving template and, where known, its marked form.

    Attributes:
        serving: What serving renders.
        marked: The same with markers, or None where spans come from the serving template alone.
    """

    serving: ChatTemplate
    marked: ChatTemplate | None

    @property
    def text(self) -> str:
        """Return the source that training renders with."""
        return self.marked.text if self.marked else self.serving.text

    def render_spans(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None = None
    ) -> tuple[str, list[Span | None]]:
        """Render a conversation and find what the model itself would have written in each assistant turn.

        Args:
            messages: As `rows.template_messages` gives them.
            tools: OpenAI function tools.

        Returns:
            The text, and per assistant message its span (content and end-of-turn token), in order; None where the
            template renders the history before that turn differently from what serving rendered when it was written.

        Raises:
            DatasetError: The template does not render, or ends turns with something else than its end token.
        """
        if self.marked is None:
            return self._spans_by_prefix(messages, tools)
        text, spans = self.marked.render_marked(messages, tools)
        count = sum(message["role"] == "assistant" for message in messages)
        if len(spans) != count:
            raise DatasetError(f"The training template marked {len(spans)} turns where there are {count}.")
        return text, list(spans)

    def _spans_by_prefix(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None
    ) -> tuple[str, list[Span | None]]:
        text = self.serving.render(messages, tools)
        spans: list[Span | None] = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt = self.serving.render(messages[:index], tools, add_generation_prompt=True)
            end = text.find(self.serving.eos_token, len(prompt))
            if not text.startswith(prompt):
                spans.append(None)
            elif end < 0:
                raise DatasetError(
                    f"The chat template {self.serving.sha256[:12]} does not end an assistant turn with "
                    f"{self.serving.eos_token!r}, so that stopping could not be learnt. Use another base."
                )
            else:
                spans.append((len(prompt), end + len(self.serving.eos_token)))
        return text, spans


def training_template(serving: ChatTemplate) -> TrainingTemplate:
    """Return the training variant of a serving template; it renders the same bytes by construction and by probe."""
    for replacements in _MARKINGS:
        if all(serving.text.count(old) == count for old, _, count in replacements):
            text = serving.text
            for old, new, _ in replacements:
                text = text.replace(old, new)
            marked = ChatTemplate(text, serving.bos_token, serving.eos_token)
            if _same_on_probes(serving, marked):
                return TrainingTemplate(serving, marked)
    return TrainingTemplate(serving, None)


def require_conversation(template: TrainingTemplate) -> None:
    """Refuse a template that cannot say what every row says, before a whole corpus is tried on it.

    Raises:
        DatasetError: It does not render a call and its result, or does not end turns.
    """
    try:
        template.render_spans([*_PROBE[:2], {**_PROBE[2], "tool_calls": [_CALL]}, _PROBE[3], _PROBE[7]], [_TOOL])
    except DatasetError as error:
        raise DatasetError(
            f"The base's chat template cannot render a conversation with a tool call: {error} Choose a base whose template "
            "supports tools, or put such a template into its folder."
        ) from error


def _same_on_probes(serving: ChatTemplate, marked: ChatTemplate) -> bool:
    by_prefix = TrainingTemplate(serving, None)
    try:
        for messages, tools in PROBES:
            if marked.render_marked(messages, tools) != by_prefix.render_spans(messages, tools):
                return False
            if marked.render(messages, tools, True) != serving.render(messages, tools, True):
                return False
    except DatasetError:
        return False
    return True


_CALL = {"type": "function", "function": {"name": "Read", "arguments": {"file_path": "/a/é<b>.py", "limit": 3}}}
_TOOL = {"type": "function", "function": {"name": "Read", "description": "x", "parameters": {"type": "object"}}}
_PROBE: list[dict[str, Any]] = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "Read it & say <what>"},
    {"role": "assistant", "content": "First.", "tool_calls": [_CALL, _CALL]},
    {"role": "tool", "content": "one"},
    {"role": "tool", "content": "two\n"},
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
    {"role": "tool", "content": ""},
    {"role": "assistant", "content": "Done.\n\n* a"},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
]
PROBES: tuple[tuple[list[dict[str, Any]], list[dict[str, Any]] | None], ...] = tuple(
    (messages, tools)
    for tools in ([_TOOL, _TOOL], None)
    for messages in (_PROBE, _PROBE[:3], _PROBE[:5], _PROBE[:8], _PROBE[1:6], [_PROBE[0], _PROBE[1], _PROBE[7]])
)

# Qwen2.5 and our Hermes template: a turn without calls shares a branch with the user's, and the newline that ends the
# header is written by whatever comes first in the turn, so both branches are written out anew.
_QWEN25 = (
    (
        '(message.role == "user") or (message.role == "system" and not loop.first) or '
        '(message.role == "assistant" and not message.tool_calls)',
        '(message.role == "user") or (message.role == "system" and not loop.first)',
        1,
    ),
    (
        """        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}""",
        """        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- generation %}
        {{- message.content }}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if message.content or not loop.first %}
                {{- '\\n' }}
            {%- endif %}""",
        1,
    ),
    ("""{{- '\\n<tool_call>\\n{"name": "' }}""", """{{- '<tool_call>\\n{"name": "' }}""", 1),
    (
        """        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}""",
        """        {%- endfor %}
        {{- '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- elif message.role == "tool" %}""",
        1,
    ),
)
_QWEN3_END = (
    """        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}""",
    """        {{- '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- elif message.role == "tool" %}""",
    1,
)
_QWEN3_INSTRUCT = (
    (
        """        {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- if message.tool_calls %}""",
        """        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- generation %}
        {{- content }}
        {%- if message.tool_calls %}""",
        1,
    ),
    _QWEN3_END,
)
_QWEN3_THINKING = (
    (
        "        {%- if loop.index0 > ns.last_query_index %}",
        "        {{- '<|im_start|>' + message.role + '\\n' }}\n        {%- generation %}\n"
        "        {%- if loop.index0 > ns.last_query_index %}",
        1,
    ),
    ("{{- '<|im_start|>' + message.role + '\\n<think>\\n' +", "{{- '<think>\\n' +", 1),
    ("{{- '<|im_start|>' + message.role + '\\n' + content }}", "{{- content }}", 2),
    _QWEN3_END,
)
_MARKINGS: tuple[tuple[tuple[str, str, int], ...], ...] = (_QWEN25, _QWEN3_THINKING, _QWEN3_INSTRUCT)
