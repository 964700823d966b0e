"""Presets: complete, overridable field by field, and strict about what they do not know."""

import pytest

from toolcall_pipeline.errors import ConfigurationError
from toolcall_pipeline.presets import PRESETS, Configuration, resolve_configuration


def test_there_are_three_presets_and_only_smoke_is_judged_as_smoke() -> None:
    assert {name: preset.evaluation.profile for name, preset in PRESETS.items()} == {
        "smoke": "smoke",
        "nightly": "ship",
        "full": "ship",
    }


def test_one_field_can_be_replaced_and_the_rest_stays() -> None:
    changed = resolve_configuration("smoke", {"training": {"max_steps": 7}})
    assert changed.training.max_steps == 7
    assert changed.model_copy(update={"training": PRESETS["smoke"].training}) == PRESETS["smoke"]


@pytest.mark.parametrize(
    "preset, overrides",
    [
        ("huge", {}),
        ("smoke", {"trainings": {}}),
        ("smoke", {"training": {"learning_rat": 1}}),
        ("smoke", {"training": {"max_steps": "many"}}),
        ("smoke", {"preset": {"x": 1}}),
        ("smoke", {"dataset": {"recipe": "v9"}}),
        ("smoke", {"dataset": {"oversample_projects": {"git@host:me/app": 0}}}),
        ("smoke", {"export": {"equivalence_rows": 0}}),
        ("smoke", {"evaluation": {"sequences": 0}}),
        ("smoke", {"evaluation": {"cases_per_suite": {"Z": 5}}}),
        ("smoke", {"evaluation": {"cases_per_suite": {"A": -5}}}),
        ("smoke", {"evaluation": {"cases_per_suite": {"AB": 5}}}),
        ("smoke", {"training": {"learning_rate": float("inf")}}),
    ],
)
def test_what_does_not_exist_is_refused(preset: str, overrides: dict[str, dict[str, object]]) -> None:
    with pytest.raises(ConfigurationError):
        resolve_configuration(preset, overrides)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_configuration_survives_json(name: str) -> None:
    preset = PRESETS[name]
    assert Configuration.model_validate_json(preset.model_dump_json()) == preset
