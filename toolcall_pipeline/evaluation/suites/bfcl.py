"""The optional suite BFCL: single-turn categories of the Berkeley Function Calling Leaderboard, from its public files.

Scored as suite D is (parses, fits the schema, fitting tool, right number of calls); values are compared with the first
possible answer and reported as `matching_value_ratio`. Nothing of it is shipped: give the folder that holds
`BFCL_v4_*.json` and `possible_answer/`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolcall_pipeline.dataset.schemas import function_tool
from toolcall_pipeline.errors import MissingInputError
from toolcall_pipeline.evaluation.cases import Case

CATEGORIES = ("simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance")
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}


def bfcl_cases(folder: Path) -> list[Case]:
    """Return the cases of every category whose file is there.

    Raises:
        MissingInputError: The folder holds none of the files.
    """
    cases = [case for category in CATEGORIES for case in _category(folder, category)]
    if not cases:
        raise MissingInputError(
            f"{folder} holds no BFCL_v4_<category>.json. Expected the data folder of the public bfcl-eval package."
        )
    return cases


def _category(folder: Path, category: str) -> Iterator[Case]:
    name = f"BFCL_v4_{category}.json"
    if not (folder / name).is_file():
        return
    answers = {item["id"]: item["ground_truth"] for item in _lines(folder / "possible_answer" / name)}
    for item in _lines(folder / name):
        calls = [_call(answer) for answer in answers.get(item["id"], ())]
        yield Case(
            suite="BFCL",
            case_id=f"BFCL-{item['id']}",
            cluster_id=f"BFCL-{item['id']}",
            stratum=category,
            messages=tuple(item["question"][0]),
            tools=tuple(_tool(function) for function in item["function"]),
            expected={"calls": calls, "tools": sorted({call["name"] for call in calls})},
        )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                if line.strip():
                    yield json.loads(line)


def _call(answer: dict[str, dict[str, list[Any]]]) -> dict[str, Any]:
    """Return the first possible answer; an empty text among the possible values means that it may be left out."""
    ((name, arguments),) = answer.items()
    return {
        "name": name,
        "arguments": {key: values[0] for key, values in arguments.items() if values and "" not in values},
    }


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    return function_tool(function["name"], function["description"], _schema(function["parameters"]))


def _schema(value: Any) -> Any:
    """Return BFCL's own schema dialect as JSON Schema."""
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    schema = {key: _schema(item) for key, item in value.items() if key != "optional" or isinstance(item, dict)}
    if isinstance(schema.get("type"), str) and schema["type"] in _TYPES:
        mapped = _TYPES[schema["type"]]
        schema = {**schema, "type": mapped} if mapped else {key: item for key, item in schema.items() if key != "type"}
    return schema
