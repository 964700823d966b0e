"""What exists of the names a completion uses, and which words only a result told."""

import pytest

from toolcall_pipeline.evaluation.cases import ParsedCall
from toolcall_pipeline.evaluation.facts import contains_fact, drop_common_facts, facts_of
from toolcall_pipeline.evaluation.grounding import count_grounded, names_in_answer, names_in_call

CONTEXT = "Working directory: /work/repo\nsrc/app/main.py:12: def run\nPR #41 in `load_rows` of docs/guide.md"


@pytest.mark.parametrize(
    ("arguments", "found", "total"),
    [
        ({"file_path": "src/app/main.py"}, 1, 1),
        ({"file_path": "/work/repo/src/app/main.py"}, 1, 1),  # joined to the folder that was shown
        ({"file_path": "/home/other/src/app/main.py"}, 0, 1),  # another prefix, as v4 wrote
        ({"file_path": "src/app/invented.py"}, 0, 1),
        ({"file_path": "src/app/test_main.py"}, 0, 1),
        ({"command": "cat src/app/main.py | head"}, 1, 1),
        ({"command": "ls -la && git status"}, 0, 0),
        ({"command": "gh pr view #77"}, 0, 1),  # an invented pull request
        ({"command": "gh pr view #41"}, 1, 1),
        ({"file_path": "docs/guide.md", "content": "see new/file.py"}, 1, 1),  # what is written is new
        ({"file_path": "in.py"}, 0, 1),  # the end of a shown word is not it
        ({"path": "./"}, 0, 0),
        ({"path": ".//src/app/"}, 1, 1),
        ({"pattern": "src/nowhere.py|#99"}, 0, 0),  # what is looked for need not exist
        ({"command": "gh pr view 77"}, 0, 1),
        ({"order": "A1042"}, 0, 1),
    ],
)
def test_names_are_grounded_in_what_was_shown(arguments, found, total):
    names = names_in_call(ParsedCall(name="X", arguments=arguments))
    assert count_grounded(names, CONTEXT) == (found, total)


@pytest.mark.parametrize(
    ("answer", "found", "total"),
    [
        ("Look at `load_rows` and `made_up_name`.", 1, 2),
        ("It is `false`, says `pytest`.", 0, 0),  # words, not names
        ("See `main.py:31` and `guide.load_rows()`.", 2, 2),  # a line of a known file; two known names
        ("Item #1, then #2.", 0, 0),
        ("在src/app/main.py中，docs/guide.md에서도.", 2, 2),  # no space between scripts
        ("在src/app/invented.py中。", 0, 1),
    ],
)
def test_names_of_answers_are_grounded_too(answer, found, total):
    assert count_grounded(names_in_answer(answer), CONTEXT) == (found, total)


def test_names_exist_in_the_sandbox():
    assert count_grounded({"lib/b.py", "lib/inner", "./lib"}, "", ["lib/inner/a.py", "lib/b.py"]) == (3, 3)
    assert count_grounded({"/work/repo/lib/b.py", "/work/repo/lib"}, CONTEXT, ["lib/b.py"]) == (2, 2)
    assert count_grounded({"/home/other/lib/b.py", "/home/other/lib"}, CONTEXT, ["lib/b.py"]) == (0, 2)
    assert count_grounded({"lib/c.py"}, "", ["lib/b.py"]) == (0, 1)


def test_a_prompt_may_put_no_space_around_a_path():
    assert count_grounded({"src/web/app.ts"}, "请看src/web/app.ts的内容") == (1, 1)
    assert count_grounded({"rc/web/app.ts", "src/web/ap.ts"}, "请看src/web/app.ts的内容") == (0, 2)


def test_facts_are_what_only_the_result_told():
    facts = facts_of(
        ["port = 8417\nhost = quarry-3"], "server.ini sets port 8417 on quarry-3", "which port in server.ini?"
    )
    assert facts == ["quarry-3", "8417"]
    assert contains_fact("It is 8,417.", facts)
    assert contains_fact("in /work/repo/src/app/x.py", ["src/app/x.py"])
    assert contains_fact("端口是8417。", facts)
    assert contains_fact("quarry-3에서 실행합니다", facts)
    assert not contains_fact("端口是18417。", facts)
    assert facts_of(["port = 8417"], "ポートは8417です", "") == ["8417"]
    assert contains_fact("docs/説明.mdを見る", ["説明.md"])
    assert not contains_fact("It is 84170.", facts)
    assert facts_of(["port"], "the port", "port?") == []


def test_words_that_most_conclusions_share_are_no_facts():
    conclusions = [f"Updated file-{n}.py and committed" for n in range(100)]
    facts = [["committed", f"file-{n}.py"] for n in range(100)]
    assert drop_common_facts(facts, conclusions) == [[f"file-{n}.py"] for n in range(100)]
    assert drop_common_facts([["committed"]], conclusions[:1]) == [["committed"]]
