"""A config survives each form that it is written in: TOML, JSON, a manifest, a resolved spec."""

import json
from typing import Any

from hypothesis import given, settings

from flashrun.api.config import RunConfig
from flashrun.api.resource import FlashRunSpec, manifest
from flashrun.cli.config.compose import ComposedConfig, ConfigFile, compose
from flashrun.cli.config.dry_run import DryRunAnswers, list_settings, to_data, to_toml
from tests.api.strategies import configs, json_file, toml_file


def written(config: RunConfig) -> dict[str, Any]:
    """The config as the tables that a person would write."""
    return config.model_dump(mode="json", by_alias=False, exclude_none=True, exclude_defaults=True)


def values(composed: ComposedConfig) -> dict[str, Any]:
    return to_data(list_settings(composed), DryRunAnswers())["spec"]


@given(configs)
@settings(max_examples=60)
def test_toml_reads_back_as_the_same_config(tables: dict[str, Any]) -> None:
    config = compose([toml_file(tables)]).config

    assert compose([toml_file(written(config))]).config == config


@given(configs)
@settings(max_examples=40)
def test_json_is_the_same_config_as_toml(tables: dict[str, Any]) -> None:
    assert compose([json_file(tables)]).config == compose([toml_file(tables)]).config


@given(configs)
@settings(max_examples=60)
def test_a_manifest_reads_back_as_the_same_spec(tables: dict[str, Any]) -> None:
    spec = FlashRunSpec.from_config(compose([toml_file(tables)]).config)
    stored = json.loads(json.dumps(manifest("r", "n", spec)["spec"]))

    assert FlashRunSpec.validate_manifest(stored) == spec


@given(configs)
@settings(max_examples=40)
def test_a_resolved_spec_fed_back_has_the_same_values(tables: dict[str, Any]) -> None:
    first = compose([toml_file(tables)])
    as_toml = ConfigFile("again.toml", to_toml(list_settings(first)).encode())
    as_json = json_file({"state": "dry_run", "spec": values(first), "sources": {}})

    assert values(compose([as_toml])) == values(first)
    assert values(compose([as_json])) == values(first)
