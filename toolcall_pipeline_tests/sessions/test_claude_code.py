"""Claude Code lines to nodes and events."""

import json
from pathlib import Path
from typing import Any

import pytest

from toolcall_pipeline_tests.sessions.lines import SESSION, assistant, call, line, queue, read, result, text, user

TOOL = "toolu_01R62tkBs9tw5X76JmpWXYbc"
OTHER_TOOL = "toolu_01Rzxms5G9Vzz1MHf8mbMFC4"


def test_a_message_split_over_lines_keeps_its_message_id_and_every_block(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        [
            user("u1", None, "Run ls"),
            text("a1", "u1", "I will.", "msg_1"),
            call("a2", "a1", TOOL, "msg_1"),
            result("r1", "a2", TOOL, "a.py"),
            text("a3", "r1", "There is a.py.", "msg_2"),
        ],
    )
    assert [(event.kind.value, event.message_id) for event in found.events] == [
        ("prompt", None),
        ("assistant_text", "msg_1"),
        ("tool_call", "msg_1"),
        ("tool_result", None),
        ("assistant_text", "msg_2"),
    ]
    assert found.event(f"{TOOL}:result").text == "a.py"
    assert found.graph.prompt_above["a2"] == "u1"


def test_every_event_has_its_file_line_and_byte_offset(tmp_path: Path) -> None:
    lines = [user("u1", None, "Grüße"), call("a1", "u1", TOOL)]
    found = read(tmp_path, lines)
    place = found.event(TOOL).location
    content = (tmp_path / "session.jsonl").read_bytes()
    assert str(place) == "session.jsonl:2"
    assert json.loads(content[place.byte_offset :])["uuid"] == "a1"


@pytest.mark.parametrize(
    ("content", "fields", "kind", "subkind", "role"),
    [
        ("Do it", {}, "prompt", None, "prompt"),
        ([{"type": "text", "text": "Do it"}], {}, "prompt", None, "prompt"),
        ("Do it", {"isMeta": True}, "other", "meta", "passive"),
        ("<command-name>/commit</command-name>", {}, "other", "slash_command", "trigger"),
        ("<local-command-stdout>x</local-command-stdout>", {}, "other", "local_command_output", "passive"),
        ("<bash-input>ls</bash-input>", {}, "other", "bash_input", "trigger"),
        ("<task-notification>done</task-notification>", {}, "other", "task_notification", "trigger"),
        ("[Request interrupted by user]", {}, "interruption", "interruption", "passive"),
        ("Summary: we did things", {"isCompactSummary": True}, "compaction", "compaction_summary", "compaction"),
        ("Read a.py", {"isSidechain": True}, "prompt", "sub_agent_task", "prompt"),
    ],
)
def test_a_user_line_is_what_it_says_it_is(
    tmp_path: Path, content: Any, fields: dict[str, Any], kind: str, subkind: str | None, role: str
) -> None:
    found = read(tmp_path, [user("u1", None, content, **fields)])
    assert [(event.kind.value, event.subkind) for event in found.events] == [(kind, subkind)]
    assert found.nodes[0].role == role


@pytest.mark.parametrize(
    ("fields", "subkind"),
    [({"isApiErrorMessage": True}, "api_error"), ({"model": "<synthetic>"}, "synthetic")],
)
def test_lines_written_in_the_models_name_are_no_answers(tmp_path: Path, fields: dict[str, Any], subkind: str) -> None:
    row = text("a1", None, "No response requested.")
    if "model" in fields:
        row["message"]["model"] = fields.pop("model")
    found = read(tmp_path, [row | fields])
    assert [(event.kind.value, event.subkind) for event in found.events] == [("other", subkind)]


@pytest.mark.parametrize(
    ("content", "block", "expected"),
    [
        ("plain", {}, ("plain", None, False, False)),
        ("no", {"is_error": True}, ("no", True, False, False)),
        ("fine", {"is_error": False}, ("fine", False, False, False)),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], {}, ("a\nb", None, False, False)),
        ([{"type": "image", "source": {}}], {}, ("[image]", None, False, True)),
        ([], {}, ("", None, False, False)),
        (None, {}, ("", None, False, False)),
        (7, {}, ("7", None, False, False)),
        ("The user doesn't want to proceed with this tool use. x", {"is_error": True}, (None, True, True, False)),
    ],
)
def test_results_are_read_in_every_form(tmp_path: Path, content: Any, block: dict[str, Any], expected: Any) -> None:
    event = read(tmp_path, [result("r1", None, TOOL, content, block=block)]).event(f"{TOOL}:result")
    text_, is_error, is_rejected, has_image = expected
    assert event.text == (content if text_ is None else text_)
    assert (event.is_error, event.is_rejected, event.has_image) == (is_error, is_rejected, has_image)


def test_words_typed_beside_a_result_are_a_prompt_and_no_rewind(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        [
            user("u1", None, "Look"),
            call("a1", "u1", TOOL, "m1"),
            call("a2", "a1", OTHER_TOOL, "m1"),
            result("r1", "a1", TOOL, beside=[{"type": "text", "text": "use the other file"}]),
            result("r2", "a2", OTHER_TOOL),
            text("a3", "r2", "done", "m2"),
        ],
    )
    assert [event.subkind for event in found.of("prompt")] == [None, "beside_result"]
    assert not found.graph.superseded


def test_short_tool_ids_are_unique_inside_their_session_only(tmp_path: Path) -> None:
    found = read(tmp_path, [call("a1", None, "call_1"), result("r1", "a1", "call_1")])
    assert [event.event_id for event in found.events] == [f"{SESSION}:call_1", f"{SESSION}:call_1:result"]
    assert found.nodes[1].tool_use_ids == (f"{SESSION}:call_1",)


def test_lines_without_uuid_form_a_list_with_positions_as_identities(tmp_path: Path) -> None:
    found = read(tmp_path, [user(None, None, "Hi"), text(None, None, "Hello")])
    assert found.graph.prompt_above[found.nodes[1].node_id] == found.nodes[0].node_id
    assert found.nodes[0].node_id == f"{SESSION}@1"


@pytest.mark.parametrize(
    ("compaction", "prompt"),
    [
        ([line("system", "c1", None, subtype="compact_boundary", logicalParentUuid="a2")], "u2"),
        ([line("system", "c1", None, subtype="compact_boundary", logicalParentUuid="a1")], "u1"),  # the one it names
        ([line("system", "c1", None, subtype="compact_boundary", logicalParentUuid="never written")], "u2"),
        (
            [line("system", "c1", None, subtype="compact_boundary", logicalParentUuid="s1")],
            "u2",
        ),  # a later line: no circle
        ([line("system", "c1", None, subtype="compact_boundary")], "u2"),
        ([], "u2"),  # a summary alone, as older versions wrote it
    ],
)
def test_a_compaction_goes_on_with_the_conversation_before_it(
    tmp_path: Path, compaction: list[Any], prompt: str
) -> None:
    before = [user("u1", None, "Go"), text("a1", "u1", "Done"), user("u2", "a1", "More"), text("a2", "u2", "Done")]
    summary = user("s1", "c1" if compaction else None, "Summary: ...", isCompactSummary=True)
    found = read(tmp_path, [*before, *compaction, summary, call("a3", "s1", TOOL)])
    assert found.graph.prompt_above["a3"] == prompt
    assert found.graph.is_direct["a3"] is False


class TestSubAgents:
    def test_inline_side_chains_are_linked_by_the_task_they_were_given(self, tmp_path: Path) -> None:
        found = read(
            tmp_path,
            [
                user("u1", None, "Go"),
                call("a1", "u1", TOOL, name="Task", tool_input={"prompt": "Read a.py"}),
                user("s1", None, "Read a.py", isSidechain=True),
                call("s2", "s1", OTHER_TOOL, name="Read", isSidechain=True),
                result("s3", "s2", OTHER_TOOL, isSidechain=True),
                result("r1", "a1", TOOL),
            ],
        )
        agents = {node.agent_id for node in found.nodes if node.node_id.startswith("s")}
        assert agents == {"side-s1"}
        assert found.graph.spawned_by == {"side-s1": TOOL}
        assert found.graph.prompt_above["s2"] == "s1"

    def test_an_agent_file_without_the_side_chain_mark_is_a_sub_agents(self, tmp_path: Path) -> None:
        from toolcall_pipeline_tests.sessions.lines import Read, write

        path = write(tmp_path / "agent-a0853aa.jsonl", [user("s1", None, "Read a.py"), text("s2", "s1", "x = 1")])
        assert {node.agent_id for node in Read(path).nodes} == {"a0853aa"}

    def test_the_result_of_a_call_names_the_agent_it_started(self, tmp_path: Path) -> None:
        found = read(tmp_path, [call("a1", None, TOOL), result("r1", "a1", TOOL, toolUseResult={"agentId": "a0853aa"})])
        assert found.graph.spawned_by == {"a0853aa": TOOL}

    def test_messages_nested_in_progress_lines_are_read_and_linked(self, tmp_path: Path) -> None:
        inner = [
            {
                "type": "user",
                "uuid": "n1",
                "message": {"role": "user", "content": [{"type": "text", "text": "Find it"}]},
            },
            assistant("n2", None, [{"type": "tool_use", "id": OTHER_TOOL, "name": "Grep", "input": {}}]),
            {"type": "user", "uuid": "n3", "message": result("x", None, OTHER_TOOL)["message"]},
        ]
        lines = [call("a1", None, TOOL, name="Task")]
        for number, message in enumerate(inner):
            data = {"type": "agent_progress", "agentId": "a1b2", "message": message, "normalizedMessages": []}
            parent = "a1" if number == 0 else f"p{number - 1}"
            lines.append(line("progress", f"p{number}", parent, data=data, parentToolUseID=TOOL))
        found = read(tmp_path, [*lines, result("r1", "a1", TOOL)])
        nested = found.event(OTHER_TOOL)
        assert (nested.agent_id, nested.spawned_by_tool_use_id, nested.location.line) == ("a1b2", TOOL, 3)
        assert found.account.tool_calls_nested == 1
        assert found.graph.prompt_above["n2"] == "n1"
        assert found.graph.prompt_above["p2"] is None  # the carrier stays in the main conversation


class TestQueue:
    def _conversation(
        self, *operations: dict[str, Any], tail: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        return [
            user("u1", None, "Run the tests"),
            call("a1", "u1", TOOL, "m1"),
            *operations,
            result("r1", "a1", TOOL),
            *(tail if tail is not None else [call("a2", "r1", OTHER_TOOL, "m2")]),
        ]

    def test_a_removed_entry_was_given_to_the_agent_and_is_the_prompt_above_what_follows(self, tmp_path: Path) -> None:
        found = read(tmp_path, self._conversation(queue("enqueue", "and lint too"), queue("remove")))
        prompts = found.of("prompt")
        assert [(event.text, event.subkind, event.location.line) for event in prompts][1:] == [
            ("and lint too", "queued", 3)
        ]
        assert found.graph.prompt_above["a2"] == prompts[1].event_id
        assert found.graph.prompt_above["a1"] == "u1"
        assert found.graph.turn_index["a2"] == 1

    @pytest.mark.parametrize(
        "operations",
        [
            [queue("enqueue", "and lint too")],  # never delivered
            [queue("enqueue", "and lint too"), queue("popAll", "and lint too")],  # taken back
            [queue("enqueue", "/exit"), queue("remove")],
            [queue("enqueue", "<task-notification>x</task-notification>"), queue("remove")],
            [queue("remove")],
        ],
    )
    def test_what_was_not_delivered_or_not_typed_is_no_prompt(self, tmp_path: Path, operations: list[Any]) -> None:
        assert len(read(tmp_path, self._conversation(*operations)).of("prompt")) == 1

    def test_a_dequeued_entry_is_told_once_by_its_own_line(self, tmp_path: Path) -> None:
        tail = [
            text("a2", "r1", "passed", "m2"),
            queue("dequeue"),
            user("u2", "a2", "and lint too"),
            text("a3", "u2", "ok", "m3"),
        ]
        found = read(tmp_path, self._conversation(queue("enqueue", "and lint too"), tail=tail))
        assert [event.event_id for event in found.of("prompt")] == ["u1", "u2"]

    def test_an_attachment_tells_of_the_prompt_instead_of_the_queue(self, tmp_path: Path) -> None:
        attachment = {"type": "queued_command", "prompt": "and lint too", "commandMode": "prompt"}
        tail = [
            line("attachment", "q1", "r1", attachment=attachment),
            queue("remove"),
            call("a2", "q1", OTHER_TOOL, "m2"),
        ]
        found = read(tmp_path, self._conversation(queue("enqueue", "and lint too"), tail=tail))
        assert [(event.event_id, event.subkind) for event in found.of("prompt")] == [("u1", None), ("q1", "queued")]
        assert found.graph.prompt_above["a2"] == "q1"

    def test_a_dequeued_entry_without_a_line_is_the_prompt_above_what_follows(self, tmp_path: Path) -> None:
        tail = [queue("dequeue"), text("a2", "r1", "linted", "m2")]
        found = read(tmp_path, self._conversation(queue("enqueue", "and lint too"), tail=tail))
        assert [event.text for event in found.of("prompt")] == ["Run the tests", "and lint too"]
        assert found.graph.prompt_above["a2"] == found.of("prompt")[1].event_id

    def test_the_line_behind_a_dequeue_tells_which_entry_is_meant(self, tmp_path: Path) -> None:
        notification = "<task-notification>x</task-notification>"
        tail = [queue("dequeue"), user("n1", "r1", notification), text("a2", "n1", "Seen", "m2")]
        tail += [queue("dequeue"), user("u2", "a2", "and lint too"), text("a3", "u2", "ok", "m3")]
        waiting = [queue("enqueue", "and lint too"), queue("enqueue", notification)]
        found = read(tmp_path, self._conversation(*waiting, tail=tail))
        assert [event.event_id for event in found.of("prompt")] == ["u1", "u2"]

    def test_what_is_given_back_by_name_leaves_the_rest_waiting(self, tmp_path: Path) -> None:
        operations = [queue("enqueue", "first"), queue("enqueue", "second"), queue("popAll", "first"), queue("remove")]
        found = read(tmp_path, self._conversation(*operations))
        assert [event.text for event in found.of("prompt")] == ["Run the tests", "second"]

    def test_the_same_words_queued_twice_are_two_prompts(self, tmp_path: Path) -> None:
        later = {"timestamp": "2026-09-01T08:00:02.000Z"}
        operations = [queue("enqueue", "ok"), queue("enqueue", "ok", **later), queue("remove"), queue("remove")]
        found = read(tmp_path, self._conversation(*operations))
        assert [event.text for event in found.of("prompt")] == ["Run the tests", "ok", "ok"]
        assert len({event.event_id for event in found.of("prompt")}) == 3

    def test_the_typed_entry_is_meant_where_a_notification_waits_too(self, tmp_path: Path) -> None:
        notification = queue("enqueue", '{"task_id":"b1","description":"x"}')
        found = read(tmp_path, self._conversation(notification, queue("enqueue", "and lint too"), queue("remove")))
        assert [event.text for event in found.of("prompt")] == ["Run the tests", "and lint too"]


@pytest.mark.parametrize(
    ("raw", "events", "problems"),
    [
        (b'{"type":"user","uuid":"u1","sessionId":"s","message":{"content":"a\\u0000b"}}', ["a\ufffdb"], 0),
        (b'{"type":"user","uuid":"u1","sessionId":"s","message":{"content":"a\\ud800b"}}', ["a\ufffdb"], 0),
        (b'{"type":"user","uuid":"u1","sessionId":"s","message":{"content":"\\ud83d\\ude00"}}', ["\U0001f600"], 0),
        (b'{"type":"user","uuid":"u1","sessionId":"s","message":{"content":"a\x00b"}}', ["a\ufffdb"], 0),
        (b'{"type":"user","uuid":"u1","sessionId":"s","message":{"content":"a\xffb"}}', ["a\ufffdb"], 0),
        (b'{"type":"user","uuid":7,"sessionId":8,"timestamp":9,"message":{"content":"hi"}}', ["hi"], 0),
        (b'{"type":"user","uuid":"u1","message":"not an object"}', [], 0),
        (b'{"type":"user","uuid":["u1"],"parentUuid":{},"message":{"content":{"type":"text"}}}', [], 0),
        (b'{"type":"assistant","uuid":"a1","message":{"content":["x",null,7,{"type":"text","text":null}]}}', [], 0),
        (
            b'{"type":"user","uuid":"u1","message":{"content":"a"}}{"type":"user","uuid":"u2","message":{"content":"b"}}',
            ["a", "b"],
            0,
        ),
        (b'{"type":"user","uuid":"u1","message":{"content":"a"}} trailing', ["a"], 1),
        # Another wrote on behind a line left half-written; an object inside the broken one is none of its own.
        (b'{"type":"user","uuid":"u1","mess{"type":"user","uuid":"u2","message":{"content":"b"}}', ["b"], 1),
        (b'{"uuid":"u1","x":{"y":1},"mess{"ty{"type":"user","uuid":"u2","message":{"content":"b"}}', ["b"], 1),
        (b"[1, 2]", [], 1),
        (b'"text"', [], 1),
        (b"null", [], 1),
        (b"{broken", [], 1),
        (b'{"a":' * 5000, [], 1),
        (b"[" * 100_000, [], 1),
        (b'\xef\xbb\xbf{"type":"user","uuid":"u1","message":{"content":"bom"}}', ["bom"], 0),
        (b'{"type":"user","uuid":"u1","message":{"content":"NaN follows"},"x":NaN}', ["NaN follows"], 0),
        (b'{"type":"user","uuid":"u1","message":{"content":"line\xe2\x80\xa8separator"}}', ["line\u2028separator"], 0),
    ],
)
def test_odd_bytes_are_read_or_quarantined(tmp_path: Path, raw: bytes, events: list[str], problems: int) -> None:
    from toolcall_pipeline_tests.sessions.lines import Read

    path = tmp_path / "odd.jsonl"
    path.write_bytes(raw + b"\n" + json.dumps(user("last", None, "the rest is read")).encode() + b"\n")
    found = Read(path)
    assert [event.text for event in found.events] == [*events, "the rest is read"]
    assert len(found.malformed) == problems
    assert found.account.lines == found.account.accounted_lines == 2


def test_a_tool_input_nested_too_deep_is_quarantined_and_the_rest_of_the_line_kept(tmp_path: Path) -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = {"k": deep}
    row = call("a1", None, TOOL, tool_input=deep)
    found = read(tmp_path, [row, user("u1", "a1", "go on")])
    assert [event.kind for event in found.events] == ["prompt"]
    assert "nested deeper" in found.malformed[0].reason


class TestLists:
    def test_a_file_whose_lines_name_no_parent_is_a_list(self, tmp_path: Path) -> None:
        lines = [user("u1", None, "Go"), call("a1", None, TOOL), result("r1", None, TOOL), user("u2", None, "More")]
        found = read(tmp_path, [*lines, call("a2", None, OTHER_TOOL)])
        assert (found.graph.prompt_above["a1"], found.graph.prompt_above["a2"]) == ("u1", "u2")
        assert found.graph.turn_index["a2"] == 1
        assert not found.graph.superseded

    def test_a_line_without_the_field_goes_on_from_the_line_before(self, tmp_path: Path) -> None:
        bare = call("a2", None, OTHER_TOOL)
        del bare["parentUuid"]
        found = read(tmp_path, [user("u1", None, "Go"), text("a1", "u1", "On it"), bare])
        assert found.graph.prompt_above["a2"] == "u1"

    def test_a_null_among_lines_that_name_parents_is_a_root(self, tmp_path: Path) -> None:
        found = read(tmp_path, [user("u1", None, "Go"), text("a1", "u1", "On it"), call("a2", None, OTHER_TOOL)])
        assert found.graph.prompt_above["a2"] is None

    def test_another_sessions_list_begins_anew(self, tmp_path: Path) -> None:
        found = read(tmp_path, [user("u1", None, "Go"), call("a1", None, TOOL, sessionId="another")])
        assert found.graph.prompt_above["a1"] is None


def test_a_plan_taken_into_an_empty_context_goes_on_and_is_no_rewind(tmp_path: Path) -> None:
    plan = user("u2", None, "Implement the following plan: ...", planContent="...")
    found = read(tmp_path, [user("u1", None, "Plan"), text("a1", "u1", "A plan"), plan, text("a2", "u2", "Done")])
    assert found.graph.turn_index["a2"] == 1
    assert not found.graph.superseded


def test_integers_of_any_size_stay_what_they_are(tmp_path: Path) -> None:
    found = read(tmp_path, [call("a1", None, TOOL, tool_input={"n": 10**30, "m": -(2**63) - 1})])
    assert found.event(TOOL).tool_input == {"n": 10**30, "m": -(2**63) - 1}


@pytest.mark.parametrize("field", ["uuid", "parentUuid", "sessionId", "cwd", "gitBranch", "agentId", "toolUseResult"])
@pytest.mark.parametrize("kind", ["user", "assistant", "progress"])
def test_no_nul_leaves_the_reader_in_a_name(tmp_path: Path, kind: str, field: str) -> None:
    rows = {
        "user": result("r1", "a\0b", "toolu\0", [{"type": "text", "text": "x\0"}], toolUseResult={"agentId": "x\0"}),
        "assistant": call("a1", "r1", "toolu\0", name="Ba\0sh", tool_input={"k\0": ["\0"]}),
        "progress": line("progress", "p1", "a1", data={"type": "agent_progress", "agentId": "x\0", "message": {}}),
    }
    value = {"agentId": "x\0"} if field == "toolUseResult" else "x\0y"
    found = read(tmp_path, [rows[kind] | {field: value}])
    assert found.nodes
    assert "\\x00" not in repr([*found.nodes, *found.events, found.reader.reader_state])
