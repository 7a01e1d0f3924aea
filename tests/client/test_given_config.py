"""A config as a program gives it."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy
import pytest

from flashrun.api.config import EvalConfig
from flashrun.cli.config.problems import ConfigError
from flashrun.cli.output.failure import UsageFailure
from flashrun.client.given_config import compose_given, folders_of

CONFIG: dict[str, Any] = {
    "model": "Qwen/Qwen3.5-4B",
    "algorithm": "sft",
    "environment": {"id": "org/env", "params": {"a": {"b": 1}}},
    "train": {"epochs": 3, "lora_rank": 8},
    "worker_env": {"A": "1", "B": "2"},
    "eval": {"enabled": False, "max_examples": 9},
}
OVERRIDES: list[tuple[Mapping[str, Any], str, Any]] = [
    ({}, "train.epochs", 3),
    ({"train.epochs": 5}, "train.epochs", 5),
    ({"train": {"epochs": 5}}, "train.lora_rank", 8),
    ({"train.epochs": 5, "train": {"epochs": 6}}, "train.epochs", 6),
    ({"train.epochs": None}, "train.epochs", 2),
    ({"train": None}, "train.epochs", 2),
    ({"worker_env.A": None}, "worker_env", {"B": "2"}),
    ({"eval.enabled": None}, "eval", EvalConfig(max_examples=9)),
    ({"environment.params.a": None}, "environment.params", {"a": None}),
    ({"train.learning_rate": 1e-5}, "train.learning_rate", 1e-5),
    ({"train.learning_rate": numpy.float32(0.5)}, "train.learning_rate", 0.5),
    ({"train.epochs": numpy.int64(4)}, "train.epochs", 4),
    ({"environment.params.a.c": [1, "x", True]}, "environment.params",
     {"a": {"b": 1, "c": [1, "x", True]}}),
    ({"environment": {"params": {"x.y": 1}}}, "environment.params", {"a": {"b": 1}, "x.y": 1}),
    ({"environment.params.path": Path("a/b")}, "environment.params",
     {"a": {"b": 1}, "path": "a/b"}),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "key", "value"), OVERRIDES)
def test_overrides_go_on_top_of_the_config(
    overrides: Mapping[str, Any], key: str, value: Any
) -> None:
    found: Any = compose_given(CONFIG, overrides=overrides)
    given = found.train if key.startswith("train.") else found.config
    for name in key.removeprefix("train.").split("."):
        given = getattr(given, name)

    assert given == value


def test_what_was_given_stays_as_it_was() -> None:
    given = {"train": {"epochs": 3}}
    compose_given(CONFIG, overrides={**given, "train.epochs": 9})

    assert given == {"train": {"epochs": 3}}


def test_any_mapping_is_a_config() -> None:
    given = MappingProxyType({**CONFIG, "train": OrderedDict(epochs=4)})

    assert compose_given(given).train.epochs == 4


def test_files_and_dicts_are_merged_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "base.toml"
    file.write_text('model = "m/n"\nalgorithm = "sft"\n[environment]\nid = "org/env"\n')
    overlays = [{"train": {"epochs": 2, "lora_rank": 4}}, {"train": {"epochs": 3}}]
    found = compose_given(str(file), overlays, {"train.lora_rank": 8})

    assert (found.train.epochs, found.train.lora_rank) == (3, 8)
    assert folders_of(file) == [tmp_path.resolve()]
    assert folders_of(CONFIG) == []


TOO_DEEP: dict[str, Any] = {}
TOO_DEEP["again"] = TOO_DEEP
PROBLEMS: list[tuple[Any, str]] = [
    ({**CONFIG, "modle": 1}, "config: modle"),
    ({**CONFIG, "train": {"epochs": {1, 2}}}, "config: this is not a config: a set cannot be"),
    ({**CONFIG, "train": {("a", "b"): 1}}, "config: this is not a config"),
    (TOO_DEEP, "config: this is not a config"),
    ({**CONFIG, "train": {"learning_rate": float("nan")}}, "train.learning_rate"),
    ({}, "model"),
]


@pytest.mark.parametrize(("config", "text"), PROBLEMS)
def test_a_problem_names_what_was_given(config: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        compose_given(config)


@pytest.mark.parametrize("path", ["absent.toml", "-", "."])
def test_a_file_that_cannot_be_read_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(UsageFailure, match="cannot read"):
        compose_given(path)
