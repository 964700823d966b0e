"""The chain's order, and that importing it stays cheap."""

import subprocess
import sys

import pytest

from toolcall_pipeline import chain
from toolcall_pipeline.errors import UsageError

HEAVY = ("torch", "transformers", "peft", "trl", "llama_cpp", "datasets", "matplotlib", "scipy", "statsmodels")


def test_every_asset_comes_after_what_it_is_made_from() -> None:
    for asset, parents in chain.UPSTREAM.items():
        assert all(chain.ASSETS.index(parent) < chain.ASSETS.index(asset) for parent in parents)


@pytest.mark.parametrize(
    "asset, above",
    [
        ("jsonl_sessions", ()),
        ("v2_chat_dataset", ("jsonl_sessions", "linked_tool_calls")),
        ("baseline_reports", ("jsonl_sessions", "linked_tool_calls", "v2_chat_dataset")),
        ("eval_reports", chain.ASSETS[:-1]),
    ],
)
def test_ancestors_are_all_assets_above_in_chain_order(asset: str, above: tuple[str, ...]) -> None:
    assert chain.ancestors(asset) == above


def test_an_unknown_asset_is_a_usage_error_that_lists_the_chain() -> None:
    with pytest.raises(UsageError, match="gguf_q6k"):
        chain.ancestors("gguf_q4")


@pytest.mark.parametrize(
    "module", ["toolcall_pipeline.chain", "toolcall_pipeline.definitions", "toolcall_pipeline.cli"]
)
def test_no_heavy_library_is_imported_before_it_is_used(module: str) -> None:
    code = f"import sys, warnings; warnings.simplefilter('ignore'); import {module}; print([n for n in {HEAVY!r} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_no_room_of_the_ground_floor_imports_dagster() -> None:
    code = (
        "import sys, pkgutil, importlib, warnings; warnings.simplefilter('ignore')\n"
        "import toolcall_pipeline as package\n"
        "for module in pkgutil.walk_packages(package.__path__, 'toolcall_pipeline.'):\n"
        "    if module.name.split('.')[1] not in ('defs', 'definitions') and not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "print('dagster' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
