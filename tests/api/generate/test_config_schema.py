"""``flash schema``: editors accept what we accept and refuse what we refuse, as far as they can."""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import BaseModel

from flashrun.api.config import RunConfig
from flashrun.api.generate.config_schema import toml_schema
from tests.api.strategies import configs
from tests.json_schemas import validator

SCHEMA = toml_schema()
of_configs = functools.cache(lambda: validator(SCHEMA))
"""Checks a whole config."""
MINIMAL: dict[str, Any] = {"model": "Qwen/Qwen3.5-4B", "environment": {"id": "a/b"}}


def test_the_schema_is_one() -> None:
    assert of_configs().schema == SCHEMA


@given(configs)
@settings(max_examples=60)
def test_what_is_accepted_is_valid(tables: dict[str, Any]) -> None:
    # Editors suggest the names of algorithms as they are listed; the parser is more generous.
    listed = {**tables, "algorithm": "sft"} if "algorithm" in tables else tables
    of_configs().validate(listed)


REFUSED: dict[str, dict[str, Any]] = {
    "no model": {"environment": {"id": "a/b"}},
    "no environment": {"model": "m"},
    "no environment id": {"model": "m", "environment": {}},
    "an empty model": {**MINIMAL, "model": ""},
    "a model that is a number": {**MINIMAL, "model": 3},
    "another algorithm": {**MINIMAL, "algorithm": "dpo"},
    "thinking in words": {**MINIMAL, "thinking": "yes"},
    "an unknown key": {**MINIMAL, "thinkng": True},
    "an unknown section": {**MINIMAL, "grpo": {}},
    "an unknown key of environment": {**MINIMAL, "environment": {"id": "a/b", "secret": ["A"]}},
    "an unknown key of train": {**MINIMAL, "train": {"stepz": 1}},
    "an unknown key of wandb": {**MINIMAL, "wandb": {"name": "n"}},
    "an id without an org": {**MINIMAL, "environment": {"id": "b"}},
    "an id of three parts": {**MINIMAL, "environment": {"id": "a/b/c"}},
    "a value among the secrets": {**MINIMAL, "environment": {"id": "a/b", "secrets": ["A=b"]}},
    "one package for a list": {**MINIMAL, "environment": {"id": "a/b", "pip": "openai"}},
    "a table that is a number": {**MINIMAL, "train": 3},
    "a rank of 0": {**MINIMAL, "train": {"lora_rank": 0}},
    "a rank of 1.5": {**MINIMAL, "train": {"lora_rank": 1.5}},
    "a rank of true": {**MINIMAL, "train": {"lora_rank": True}},
    "a rank in words": {**MINIMAL, "train": {"lora_rank": "16"}},
    "a group of one": {**MINIMAL, "train": {"group_size": 1}},
    "a learning rate of 0": {**MINIMAL, "train": {"learning_rate": 0}},
    "a negative temperature": {**MINIMAL, "train": {"temperature": -1}},
    "a penalty above 1": {**MINIMAL, "train": {"thinking_length_penalty_coef": 1.1}},
    "a stop that is a number": {**MINIMAL, "train": {"stop_sequences": [1]}},
    "a variable that is a number": {**MINIMAL, "worker_env": {"A": 3}},
    "a variable with a dash": {**MINIMAL, "worker_env": {"A-B": "x"}},
}


@pytest.mark.parametrize("tables", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_invalid(tables: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        RunConfig.validate_toml(tables)
    assert not of_configs().is_valid(tables)


def keys(model: type[BaseModel], node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in model.model_fields.items():
        inner = node["properties"][name]
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            target = SCHEMA["$defs"][inner["$ref"].rpartition("/")[2]]
            yield from keys(field.annotation, target)
        else:
            yield name, inner


KEYS = dict(keys(RunConfig, SCHEMA))


@pytest.mark.parametrize("name", KEYS)
def test_every_key_has_a_description_and_an_example_that_is_valid(name: str) -> None:
    description, examples = KEYS[name]["description"], KEYS[name]["examples"]

    assert description.endswith(".")
    assert "``" not in description
    resolver = validator({**KEYS[name], "$defs": SCHEMA["$defs"]})
    assert examples
    assert all(resolver.is_valid(example) for example in examples)


@pytest.mark.parametrize(
    "name", [name for name in KEYS if KEYS[name].get("type") in ("integer", "number")]
)
def test_every_number_has_a_bound(name: str) -> None:
    assert KEYS[name].keys() & {"minimum", "exclusiveMinimum"}
    assert KEYS[name]["type"] == "number" or "maximum" in KEYS[name]


def test_the_examples_together_are_a_config() -> None:
    example: dict[str, Any] = {}
    for section, model in (
        ("environment", "EnvironmentConfig"),
        ("train", "TrainConfig"),
        ("wandb", "WandbConfig"),
    ):
        properties = SCHEMA["$defs"][model]["properties"]
        example[section] = {key: node["examples"][0] for key, node in properties.items()}
    example |= {
        key: node["examples"][0] for key, node in SCHEMA["properties"].items() if "examples" in node
    }

    of_configs().validate(example)
    assert RunConfig.validate_toml(example).algorithm == "grpo"
