"""Calls outside the tags, and turns of others: what a model writes that learnt another template than the one it serves.

Serving reads all of it as text, so nothing here is a call; `completions.py` makes defects of what is found. Notations:
the chat templates of Llama 3, Mistral, Functionary, DeepSeek, Phi-4, Granite, Gemma, GLM, Kimi, MiniMax, gpt-oss, Command R,
Qwen3-Coder, Anthropic's XML and ReAct.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from toolcall_pipeline.evaluation.completion_spans import OPEN_TAG, read_json

_NAME_KEYS = ("name", "tool", "function", "action", "tool_name")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input", "action_input")
_NAME = r"[\w.:-]{1,200}"
# An object need not be JSON (Python quotes).
_NAMED_OBJECT = rf"""\{{[^{{}}]{{0,100}}?["'](?:{"|".join(_NAME_KEYS)})["']\s*:\s*["'](?P<%s>[^"'\n]{{1,200}})["']"""
_NAMED = re.compile(
    _NAMED_OBJECT % "name" + rf"""\s*,\s*["'](?:{"|".join(_ARGUMENT_KEYS)})["']\s*:"""
    rf"""|<function=(?P<function>{_NAME})>|<invoke name=["'](?P<invoke>{_NAME})["']>"""
    rf"""|^(?:Action|Tool|Function):[ \t]*`?(?P<action>{_NAME})`?[ \t]*"""
    r"""(?:\r?\n(?:Action Input|Arguments|Args|Input|Parameters):|[\[({])""",
    re.MULTILINE,
)
# Only the name of a tool on offer makes these a call: `{"name": "Read"` at the end, `Read(file_path=`, `Read.call(`,
# `Read{"`, `Read[ARGS]`, `<Read><`.
_NAMED_ON_OFFER = re.compile(
    _NAMED_OBJECT % "cut" + rf"""[^{{}}]{{0,60}}\Z"""
    rf"""|(?:^|[\[,>(])[ \t]*(?:functions\.)?(?P<code>{_NAME}+)(?:\((?:\w+=|["'{{]|\)\Z)|\[ARGS\]|\[CALL_ID\])"""
    rf"""|^(?:>>>)?(?P<line>{_NAME}+)[ \t]*\r?\n?[ \t]*\{{\s*"|^<(?P<tag>{_NAME}+)>\s*<\w+>""",
    re.MULTILINE,
)
# A name that was cut off: any tool may have been meant that begins like it.
_BEGUN = re.compile(rf"""\A\W{{0,20}}["'](?:{"|".join(_NAME_KEYS)})["']\s*:\s*["'](?P<begun>[\w.:-]{{0,200}})\Z""")
# Tokens that stand for nothing but calls; in backticks or quotes they are spoken of.
_MARKER = re.compile(
    r"""(?<![`"'\w])(?:\[TOOL_CALLS\]|functools\[\{|to=functions\.\w"""
    r"""|<[|\uff5c][\w\u2581 ]{0,40}(?:tool|function|action|python_tag|recipient|DSML)[\w\u2581 ]{0,40}[|\uff5c]?>?"""
    r"""|<(?:\w+:)?\w{0,20}?(?:tool|function)_?calls?>)""",
    re.IGNORECASE,
)
# Tokens that begin or end somebody's turn, and lines that are nothing but a role.
_ROLE = re.compile(
    r"""(?<![`"'\w])(?:<[|\uff5c][A-Za-z][\w\u2581 ]{1,40}[|\uff5c]>|<(?:start|end)_of_turn>|\[/?INST\]"""
    r"""|</?tool_(?:response|result|output)s?>)"""
    r"""|^(?:user|assistant|system|tool)[ \t]*$"""
    r"""|^(?:Human|User):[^\n]*\n(?:[^\n]*\n){0,40}?\n(?:Assistant|AI):""",
    re.MULTILINE,
)
_MIN_TAG_BEGINNING = len("<tool_")
# Objects in a text that are looked at; an answer that is no call rarely holds one.
_MOST_OBJECTS = 50


def untagged_call(text: str, tools: Collection[str] | None) -> str | None:
    """Return what is called outside the tags, or the token that begins a call; None where nothing is.

    Args:
        text: What is said, without calls and thought.
        tools: Names of the tools on offer; None where they are not known, and any name is taken for one.
    """
    written = (str(match[match.lastgroup or 0]) for match in _NAMED.finditer(text))
    for name in (*written, *_named_in_objects(text, tools)):
        if tools is None or name in tools:
            return name
    for match in _NAMED_ON_OFFER.finditer(text) if tools is not None else ():
        name = str(match[match.lastgroup or 0]).removesuffix(".call")
        if name in (tools or ()):
            return name
    begun = _BEGUN.search(text)
    if begun and (tools is None or any(name.startswith(begun["begun"]) for name in tools)):
        return begun["begun"]
    marker = _MARKER.search(text)
    return marker.group() if marker else _cut_tag(text)


def role_words(text: str) -> str | None:
    """Return the first role word or token of a chat template in what is said, or None."""
    match = _ROLE.search(text)
    return match.group()[:40].strip() if match else None


def _cut_tag(text: str) -> str | None:
    """Return the beginning of the opening tag that a text was cut in, or None."""
    lengths = range(len(OPEN_TAG) - 1, _MIN_TAG_BEGINNING - 1, -1)
    return next((OPEN_TAG[:length] for length in lengths if text.endswith(OPEN_TAG[:length])), None)


def _named_in_objects(text: str, tools: Collection[str] | None) -> Iterator[str]:
    """Yield the names of JSON objects in a text that have arguments beside the name, whatever their order."""
    position = text.find("{")
    for _ in range(_MOST_OBJECTS):
        if position < 0:
            return
        outcome = read_json(text, position)
        value, end = (None, position + 1) if isinstance(outcome, str) else outcome
        if isinstance(value, dict):
            yield from _names_of(value, tools)
        position = text.find("{", end)


def _names_of(value: dict[str, Any], tools: Collection[str] | None) -> Iterator[str]:
    """Yield what an object calls; where the tools are known, nothing but a name will do, or a name and its arguments."""
    if not set(_ARGUMENT_KEYS).isdisjoint(value) or (tools is not None and len(value) == 1):
        yield from (value[key] for key in _NAME_KEYS if isinstance(value.get(key), str))
    if tools is not None and len(value) == 1:
        yield from (key for key, item in value.items() if isinstance(item, dict))
