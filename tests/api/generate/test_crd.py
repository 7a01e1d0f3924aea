"""The CustomResourceDefinition is what the models say."""

from pathlib import Path
from typing import Any

import pytest

from flashrun.api.config import RunConfig
from flashrun.api.generate import crd
from flashrun.api.resource import FlashRunSpec

ROOT = Path(__file__).parents[3]
SCHEMA = crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]


def test_the_file_is_fresh() -> None:
    written = (ROOT / "crds" / "flashruns.yaml").read_text()
    assert written == crd.to_yaml(crd.crd()), "run make crd"


def _nodes(node: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    if isinstance(node, list):
        return [found for item in node for found in _nodes(item, path)]
    if not isinstance(node, dict):
        return []
    inner = [found for key, value in node.items() for found in _nodes(value, f"{path}.{key}")]
    return [(path, node), *inner]


@pytest.mark.parametrize("word", ["$ref", "anyOf", "oneOf", "const", "$defs", "ge", "gt", "le"])
def test_the_schema_is_structural(word) -> None:
    # A property may have any name, so only schema nodes (those with a type) are looked at.
    assert [path for path, node in _nodes(SCHEMA) if "type" in node and word in node] == []


def test_every_string_and_list_has_a_bound() -> None:
    open_strings = [
        path
        for path, node in _nodes(SPEC)
        if node.get("type") == "string" and not node.keys() & {"enum", "maxLength", "format"}
    ]
    open_lists = [
        path
        for path, node in _nodes(SPEC)
        if node.get("type") == "array" and "maxItems" not in node
    ]
    assert (open_strings, open_lists) == ([], [])


def test_every_field_but_control_and_budget_has_a_rule_that_sees_every_change_of_it() -> None:
    rules = " ".join(rule["rule"] for rule in SPEC["x-kubernetes-validations"])
    fields = {field.alias or name for name, field in FlashRunSpec.model_fields.items()}

    for field in fields - {"control", "budget"}:
        assert f"has(self.{field}) == has(oldSelf.{field})" in rules
    assert "self.control == oldSelf.control" not in rules
    assert "self.budget == oldSelf.budget" not in rules


def test_bounds_are_those_of_the_model() -> None:
    train = SPEC["properties"]["train"]["properties"]

    assert (train["loraRank"]["minimum"], train["loraRank"]["maximum"]) == (1, 1024)
    assert (train["learningRate"]["minimum"], train["learningRate"]["exclusiveMinimum"]) == (
        0,
        True,
    )
    assert train["stopSequences"]["maxItems"] == 64


@pytest.mark.parametrize("table", ["eval", "budget"])
def test_a_table_of_our_own_is_explained_as_an_extension_of_the_reference(table: str) -> None:
    assert "extension of the reference" in SPEC["properties"][table]["description"]
    assert all(node["description"] for node in SPEC["properties"][table]["properties"].values())


def test_params_are_compared_by_value() -> None:
    params = SPEC["properties"]["environment"]["properties"]["params"]

    assert "x-kubernetes-preserve-unknown-fields" not in params
    assert params["additionalProperties"] == {"x-kubernetes-preserve-unknown-fields": True}


def test_every_key_has_a_camel_case_name_and_a_description() -> None:
    for name in RunConfig.model_fields["train"].annotation.model_fields:  # type: ignore[union-attr]
        words = name.split("_")
        key = words[0] + "".join(word.title() for word in words[1:])
        assert SPEC["properties"]["train"]["properties"][key]["description"]
