"""The configuration of a run, as the Launchpad shows it: a preset, and every field settable alone.

The schema is generated from `presets.py`; what the fields mean is said there. A partition remembers its configuration
(`store/runs.py`): a run that sets nothing uses what the partition was made with, a run that names a preset starts from
that preset, and single fields are set on top. What differs from the remembered configuration is remembered from then on.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

import dagster as dg
from pydantic import BaseModel
from sqlalchemy.engine import Engine

from toolcall_pipeline.presets import PRESETS, Configuration, resolve_configuration
from toolcall_pipeline.store import runs

DEFAULT_PRESET = "smoke"
CONFIGURATION_KEY = "configuration"


def configuration_schema() -> dict[str, dg.Field]:
    """Return the Dagster schema of everything in `presets.Configuration`; an absent field keeps its value."""
    schema = {
        "preset": dg.Field(
            _enumeration("preset", sorted(PRESETS)),
            is_required=False,
            description=f"Sets everything at once. Absent: what the partition was made with; for a new one `{DEFAULT_PRESET}`.",
        )
    }
    for name, section in Configuration.model_fields.items():
        if isinstance(section.annotation, type) and issubclass(section.annotation, BaseModel):
            schema[name] = dg.Field(
                dg.Shape(_section_fields(name, section.annotation)),
                is_required=False,
                description=(section.annotation.__doc__ or "").strip(),
            )
    return schema


def resolve(explicit: Mapping[str, Any], remembered: Configuration | None) -> Configuration:
    """Return the configuration of a run.

    Args:
        explicit: `{"preset": ..., "training": {"learning_rate": ...}, ...}`: the fields the run sets.
        remembered: What the partition was made with, or None for a new one.

    Raises:
        ConfigurationError: A value does not fit.
    """
    overrides: dict[str, dict[str, Any]] = {}
    preset = explicit.get("preset")
    if preset is None and remembered is not None:
        preset = remembered.preset
        overrides = {name: value for name, value in remembered.model_dump().items() if isinstance(value, dict)}
    for section, fields in explicit.items():
        if section != "preset":
            overrides[section] = {**overrides.get(section, {}), **fields}
    return resolve_configuration(preset or DEFAULT_PRESET, overrides)


def resolve_and_remember(engine: Engine, partition: str, explicit: Mapping[str, Any]) -> Configuration:
    """Return the configuration of a run of a partition, and keep it with the partition where that is known already."""
    run = runs.get_run(engine, partition)
    configuration = resolve(explicit, run.configuration if run else None)
    if run is not None and configuration != run.configuration:
        runs.update_configuration(engine, partition, configuration)
    return configuration


def _section_fields(section: str, model: type[BaseModel]) -> dict[str, dg.Field]:
    defaults = {name: getattr(preset, section) for name, preset in PRESETS.items()}
    fields = {}
    for name, field in model.model_fields.items():
        values = {preset: getattr(value, name) for preset, value in defaults.items()}
        by_preset = ", ".join(f"{preset}: {value}" for preset, value in values.items())
        fields[name] = dg.Field(
            _dagster_type(f"{section}_{name}", field.annotation),
            is_required=False,
            description=f"{field.description or name.replace('_', ' ')}. {by_preset}.",
        )
    return fields


def _dagster_type(name: str, annotation: Any) -> Any:
    """Return the Dagster configuration type of a field's annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _enumeration(name, arguments)
    if origin in (Union, types.UnionType):
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return dg.Noneable(_dagster_type(name, inner))
    if origin in (tuple, list):
        return dg.Array(_dagster_type(name, arguments[0]))
    if origin is dict:
        return dg.Map(arguments[0], _dagster_type(name, arguments[1]))
    return {bool: bool, int: int, str: str, float: dg.Float}[annotation]


def _enumeration(name: str, values: Any) -> dg.Enum:
    return dg.Enum(f"{name}_choice", [dg.EnumValue(value) for value in values])


@dg.resource(
    config_schema=configuration_schema(),
    description="What this run is made with. Leave it empty to use what the partition remembers.",
)
def configuration_resource(context: dg.InitResourceContext) -> dict[str, Any]:
    """Return the fields that the run sets, and no others."""
    return dict(context.resource_config or {})
