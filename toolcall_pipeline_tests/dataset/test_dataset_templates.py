"""Templates render as transformers renders them, and the training variant as the serving one, byte for byte."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dataset_fakes import FakeTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall_pipeline.dataset.templates import (
    PROBES,
    ChatTemplate,
    TrainingTemplate,
    hermes_template,
    serving_template,
    system_prompt,
    training_template,
)
from toolcall_pipeline.errors import DatasetError

_TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=30).map(
    lambda text: text.replace("<|", "< |").strip()
)
_CALL = st.builds(
    lambda name, value: {"type": "function", "function": {"name": name, "arguments": {"path": value, "n": 1.5}}},
    st.sampled_from(["Read", "Bash"]),
    _TEXT,
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": draw(_TEXT)},
        {"role": "user", "content": draw(_TEXT)},
    ]
    for _ in range(draw(st.integers(0, 3))):
        calls = draw(st.lists(_CALL, min_size=1, max_size=2))
        messages.append({"role": "assistant", "content": draw(_TEXT), "tool_calls": calls})
        messages.extend({"role": "tool", "content": draw(_TEXT)} for _ in calls)
    messages.append({"role": "assistant", "content": "x" + draw(_TEXT)})
    return messages


_TOOLS = [
    {"type": "function", "function": {"name": "Read", "description": "Über <b>", "parameters": {"type": "object"}}}
]


@settings(deadline=None, max_examples=60)
@given(messages=conversations(), with_tools=st.booleans())
def test_the_marked_hermes_template_renders_what_serving_renders(
    messages: list[dict[str, Any]], with_tools: bool
) -> None:
    tools = _TOOLS if with_tools else None
    serving = ChatTemplate(hermes_template())
    training = training_template(serving)
    assert training.marked is not None
    text, spans = training.render_spans(messages, tools)
    assert text == serving.render(messages, tools)
    assert (text, spans) == TrainingTemplate(serving, None).render_spans(messages, tools)
    assert all(text[start:end].endswith("<|im_end|>") for start, end in filter(None, spans))


def test_spans_hold_exactly_content_calls_and_end_of_turn() -> None:
    text, spans = training_template(ChatTemplate(hermes_template())).render_spans(*PROBES[0])
    first, second, third, _ = (text[start:end] for start, end in filter(None, spans))
    assert first.startswith("First.\n<tool_call>\n")
    assert first.endswith("\n</tool_call><|im_end|>")
    assert second.startswith("<tool_call>")
    assert third == "Done.\n\n* a<|im_end|>"


_PUBLIC = {  # file, marked by a known replacement
    "Qwen-Qwen2.5-7B-Instruct.jinja": True,
    "Qwen-Qwen3-0.6B.jinja": True,
    "Qwen3-Coder.jinja": False,
    "Qwen3.5-4B.jinja": False,
    "Qwen-QwQ-32B.jinja": False,
}


@pytest.mark.parametrize(("name", "is_marked"), _PUBLIC.items())
def test_public_templates_train_as_they_serve(name: str, is_marked: bool, shared_dir: Path) -> None:
    serving = ChatTemplate((shared_dir / "testassets" / "chat_templates" / name).read_text("utf-8"))
    training = training_template(serving)
    assert (training.marked is not None) == is_marked
    for messages, tools in PROBES:
        text, spans = training.render_spans(messages, tools)
        assert text == serving.render(messages, tools)
        places = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        for index, span in zip(places, spans, strict=True):
            prompt = serving.render(messages[:index], tools, add_generation_prompt=True)
            assert (span is None) == (not text.startswith(prompt))
            assert span is None or text[: span[0]] == prompt


def test_it_renders_as_transformers_does(shared_dir: Path) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    for path in sorted((shared_dir / "testassets" / "chat_templates").glob("Qwen*.jinja")):
        text = path.read_text("utf-8")
        for messages, tools in PROBES[:4]:
            theirs, _ = render_jinja_template([messages], tools=tools, chat_template=text, bos_token="", eos_token="")
            assert ChatTemplate(text, "", "").render(messages, tools) == theirs[0], path.name


def test_threads_that_render_at_once_find_their_own_spans() -> None:
    template = training_template(ChatTemplate(hermes_template()))
    conversations = [
        [*messages, {"role": "user", "content": "x" * 50 * number}] for number, (messages, _) in enumerate(PROBES)
    ]
    alone = [template.render_spans(messages) for messages in conversations]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # in the middle of every rendering
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(template.render_spans, conversations * 20)) == alone * 20
    finally:
        sys.setswitchinterval(interval)


def test_the_generation_block_marks_what_transformers_marks() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    training = training_template(ChatTemplate(hermes_template()))
    assert training.marked is not None
    messages, tools = PROBES[0]
    _, indices = render_jinja_template(
        [messages], tools=tools, chat_template=training.marked.text, return_assistant_tokens_mask=True
    )
    assert [tuple(pair) for pair in indices[0]] == training.render_spans(messages, tools)[1]


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",  # walks out of the sandbox
        "{% for i in range(10**9) %}{% endfor %}",  # spends all time
        "{{ cycler.__init__.__globals__.os }}",
        "{{ messages.append(1) }}",  # changes its input
        "{{ raise_exception('no') }}",
        "{% if %}",
    ],
)
def test_a_hostile_or_broken_template_is_refused_with_a_reason(source: str) -> None:
    with pytest.raises(DatasetError, match="chat template"):
        ChatTemplate(source).render([{"role": "user", "content": "x"}])


def test_a_template_without_an_end_of_turn_is_refused() -> None:
    source = "{% for m in messages %}{{ m.role + ':' + m.content }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    template = TrainingTemplate(ChatTemplate(source, "", "</s>"), None)
    with pytest.raises(DatasetError, match="does not end an assistant turn"):
        template.render_spans([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])


def test_a_tokenizer_without_a_template_is_refused(backend: Any) -> None:
    with pytest.raises(DatasetError, match="no chat template"):
        serving_template(FakeTokenizer(backend, chat_template=None))  # type: ignore[arg-type]


def test_the_tool_template_of_several_is_taken(backend: Any) -> None:
    named = FakeTokenizer(backend, chat_template={"default": "d", "tool_use": "t"})
    assert serving_template(named).text == "t"  # type: ignore[arg-type]


def test_the_system_prompt_names_the_working_directory() -> None:
    assert system_prompt("/work/app").endswith("\nWorking directory: /work/app")
    assert "Working directory" not in system_prompt(None)
