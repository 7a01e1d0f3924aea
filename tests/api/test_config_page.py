"""docs/config.md says what the models say: each key with its bounds and defaults."""

import re
from pathlib import Path
from typing import Any

import pytest

from flashrun.api import secret_patterns
from flashrun.api.catalog import BUILT_IN, Model
from flashrun.api.config import RunConfig
from flashrun.api.generate.config_schema import toml_schema
from flashrun.cli.config import compose
from flashrun.plan.resolve import resolve_eval, resolve_train

TEXT = (Path(__file__).parents[2] / "docs" / "config.md").read_text()
SCHEMA = toml_schema()
NODES = SCHEMA["$defs"]["TrainConfig"]["properties"]
EVAL_NODES = SCHEMA["$defs"]["EvalConfig"]["properties"]
BUDGET_NODES = SCHEMA["$defs"]["BudgetConfig"]["properties"]


def rows(text: str) -> dict[str, tuple[str, ...]]:
    """The cells behind each key of the tables in ``text``."""
    return {
        key: tuple(cell.strip() for cell in rest.split("|")[:-1])
        for key, rest in re.findall(r"^\| `(\w+)` \|(.*)$", text, re.MULTILINE)
    }


_BEFORE, _EVAL, _AFTER = re.split(r"^(## \[eval\]$.*?)(?=^## )", TEXT, flags=re.M | re.S)
_, _BUDGET, _ = re.split(r"^(## \[budget\]$.*?)(?=^## )", TEXT, flags=re.M | re.S)
ROWS, EVAL_ROWS = rows(_BEFORE + _AFTER), rows(_EVAL)
NUMBERS = [key for key, node in NODES.items() if node.get("type") in ("integer", "number")]


def bounds(node: dict[str, Any]) -> str:
    """A number's type and bounds, as the page writes them."""
    kind = "int" if node["type"] == "integer" else "number"
    if "exclusiveMinimum" in node:
        return f"{kind}, above {node['exclusiveMinimum']:,}"
    low = f"{node['minimum']:,}"
    return f"{kind}, {low} to {node['maximum']:,}" if "maximum" in node else f"{kind}, from {low}"


def default(key: str, algorithm: str) -> str:
    """A key's default, as the page writes it."""
    plain, reasoning = (
        getattr(resolve_train(RunConfig.validate_toml(table)), key)
        for table in (
            {"model": "m", "environment": {"id": "a/b"}, "algorithm": algorithm, "thinking": on}
            for on in (False, True)
        )
    )
    if plain is None:
        return "-"
    return str(plain) if plain == reasoning else f"{plain} ({reasoning})"


def test_every_key_has_a_row() -> None:
    assert set(NODES) <= ROWS.keys()
    assert set(SCHEMA["$defs"]["EnvironmentConfig"]["properties"]) <= ROWS.keys()
    assert set(SCHEMA["$defs"]["WandbConfig"]["properties"]) <= ROWS.keys()
    assert {"model", "algorithm", "thinking"} <= ROWS.keys()


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_has_its_bounds_and_both_defaults(key: str) -> None:
    kind, sft, grpo, _ = ROWS[key]

    assert kind == bounds(NODES[key])
    assert sft == default(key, "sft")
    assert grpo == default(key, "grpo")


def test_every_key_of_an_evaluation_has_a_row_with_its_bounds_and_default() -> None:
    config = RunConfig.validate_toml({"model": "m", "environment": {"id": "a/b"}})
    resolved = resolve_eval(config, resolve_train(config))

    assert EVAL_ROWS.keys() == EVAL_NODES.keys()
    for key in ("every", "max_examples", "samples", "max_tokens"):
        assert EVAL_ROWS[key][0] == bounds(EVAL_NODES[key])
    for key in ("max_examples", "samples", "metric"):
        assert EVAL_ROWS[key][1].strip("`") == str(getattr(resolved, key))


def test_every_key_of_a_budget_has_a_row_with_its_bounds() -> None:
    found = rows(_BUDGET)
    assert found.keys() == BUDGET_NODES.keys()
    most = f"{BUDGET_NODES['gpu_hours']['maximum']:,}"
    assert found["gpu_hours"][0] == f"number, above 0, up to {most}"


@pytest.mark.parametrize("table", [_EVAL, _BUDGET], ids=["eval", "budget"])
def test_a_table_of_our_own_is_marked_as_an_extension_of_the_reference(table: str) -> None:
    assert "extension of the reference" in table


@pytest.mark.parametrize("name", sorted(secret_patterns.RESERVED_NAMES))
def test_every_reserved_name_is_listed(name: str) -> None:
    assert f"`{name}`" in TEXT


def test_limits_of_files_are_told() -> None:
    assert f"{compose.SIZE_LIMIT:,} bytes and {compose.DEPTH_LIMIT} levels" in TEXT
    assert f"the first {compose.PROBLEMS_SHOWN} and a count" in TEXT


@pytest.mark.parametrize("model", BUILT_IN, ids=lambda model: model.id)
def test_a_built_in_model_has_a_row_with_its_limits(model: Model) -> None:
    size, limits = f"{model.parameters:g} B", f"{model.lora_rank_cap} | {model.context:,}"
    memory = f"{model.vram_sft:g} GiB | {model.vram_grpo:g} GiB"

    assert f"| `{model.id}` | {size} | {limits} | {memory} |" in TEXT


def test_a_model_with_a_row_is_built_in() -> None:
    rows = re.findall(r"^\| `([\w.-]+/[\w.-]+)` \|", TEXT, re.MULTILINE)
    assert rows == [model.id for model in BUILT_IN]
