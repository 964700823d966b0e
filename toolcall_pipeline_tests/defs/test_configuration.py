"""The Launchpad's configuration: a preset, single fields on top, and what a partition remembers."""

from __future__ import annotations

import dagster as dg
import pytest
from pydantic import BaseModel

from toolcall_pipeline.defs.configuration import configuration_resource, configuration_schema, resolve
from toolcall_pipeline.errors import ConfigurationError
from toolcall_pipeline.presets import PRESETS, Configuration, resolve_configuration
from toolcall_pipeline.store import runs
from toolcall_pipeline_tests.defs.floor import Floor

SMOKE, NIGHTLY = PRESETS["smoke"], PRESETS["nightly"]
REMEMBERED = resolve_configuration("nightly", {"training": {"epochs": 2.0}})


def with_training(preset: str, **fields: object) -> Configuration:
    return resolve_configuration(preset, {"training": fields})


@pytest.mark.parametrize(
    ("explicit", "remembered", "expected"),
    [
        ({}, None, SMOKE),  # a new partition, nothing set
        ({}, REMEMBERED, REMEMBERED),  # nothing set: what the partition was made with
        ({"preset": "nightly"}, None, NIGHTLY),
        ({"preset": "smoke"}, REMEMBERED, SMOKE),  # a named preset starts over
        ({"training": {"epochs": 3.0}}, None, with_training("smoke", epochs=3.0)),
        ({"training": {"lora_rank": 8}}, REMEMBERED, with_training("nightly", epochs=2.0, lora_rank=8)),
        ({"training": {"max_steps": None}}, SMOKE, with_training("smoke", max_steps=None)),  # null is a value
        ({"export": {"ladder": ["Q8_0"]}}, None, resolve_configuration("smoke", {"export": {"ladder": ("Q8_0",)}})),
    ],
)
def test_the_configuration_of_a_run(
    explicit: dict[str, object], remembered: Configuration | None, expected: Configuration
) -> None:
    assert resolve(explicit, remembered) == expected


def test_a_value_that_does_not_fit_is_refused_with_the_field() -> None:
    with pytest.raises(ConfigurationError, match="lora_rank"):
        resolve({"training": {"lora_rank": "many"}}, None)


def test_every_field_of_every_section_is_in_the_launchpad_with_its_value_in_each_preset() -> None:
    schema = configuration_schema()
    for name, section in Configuration.model_fields.items():
        if not (isinstance(section.annotation, type) and issubclass(section.annotation, BaseModel)):
            continue
        fields = schema[name].config_type.fields
        assert set(fields) == set(section.annotation.model_fields)
        for field in fields.values():
            assert not field.is_required
            assert "smoke: " in field.description


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_value_of_every_preset_can_be_typed_in(preset: str) -> None:
    typed = PRESETS[preset].model_dump(mode="json")

    @dg.op(required_resource_keys={"configuration"})
    def show(context) -> None:
        assert resolve(context.resources.configuration, None) == PRESETS[preset]

    @dg.job(resource_defs={"configuration": configuration_resource})
    def job() -> None:
        show()

    assert job.execute_in_process(run_config={"resources": {"configuration": {"config": typed}}}).success


def test_a_partition_remembers_what_it_was_made_with_and_what_was_changed_later(floor: Floor) -> None:
    def config(**fields: object) -> dict[str, object]:
        return {"resources": {"configuration": {"config": fields}}}

    def remembered() -> Configuration:
        with floor.engine() as engine:
            run = runs.get_run(engine, Floor.PARTITION)
        assert run is not None
        return run.configuration

    floor.run_assets(["jsonl_sessions"], **config(dataset={"seed": 7}))
    assert remembered() == resolve_configuration("smoke", {"dataset": {"seed": 7}})
    floor.run_assets(["linked_tool_calls"])
    assert remembered().dataset.seed == 7
    floor.run_assets(["v2_chat_dataset"], **config(dataset={"max_tools_per_row": 3}))
    assert remembered() == resolve_configuration("smoke", {"dataset": {"seed": 7, "max_tools_per_row": 3}})
    assert floor.artifacts.require("v2_chat_dataset", Floor.PARTITION).manifest.recipe_of_artifact["seed"] == 7
