"""Bounds of a stored status: what it may hold, and what reading anything beyond costs."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from flashrun.api.resource import FlashRun, FlashRunStatus
from flashrun.api.stored_bounds import ENTRIES_LIMIT, VALUES_LIMIT, bounded_fields, is_bounded
from tests.api.test_resource import stored

SECONDS = 0.05
"""Longest processor time for reading a run."""
CONDITION = {"type": "Ready", "status": "True", "reason": "Succeeded"}
STATUS = {"phase": "Failed", "storage": "s3://b/p"}
LISTS = ("conditions", "attempts", "checkpoints")


def read_in_time(status: dict[str, Any]) -> FlashRunStatus | None:
    """Read a run with ``status``; None: it is refused. Other work on the machine takes time too."""
    manifest = stored({}, json.loads(json.dumps(status)))  # in JSON, nothing is in two places
    for remaining in reversed(range(5)):
        began = time.thread_time()
        try:
            read = FlashRun.from_manifest(manifest).status
        except ValidationError:
            read = None
        seconds = time.thread_time() - began
        if seconds < SECONDS:
            return read
        assert remaining, f"{seconds:.3f} s"
    return None


FLOODS: dict[str, dict[str, Any]] = {
    "wrong conditions": {"conditions": [{"type": f"T{n}", "statu": "True"} for n in range(1_200)]},
    "conditions of other types": {
        "conditions": [{**CONDITION, "type": f"T{n}"} for n in range(1_200)]
    },
    "empty items of every list": {name: [{}] * 15_000 for name in LISTS},
    "numbers in a list": {"attempts": [1] * 200_000},
    "nodes": {"resolved": {"environmentDigest": "d", "avoidNodes": [1] * 200_000}},
    "keys of a table": {"resolved": {"train": {f"key{n}": 1 for n in range(50_000)}}},
    "unknown fields": {f"field{n}": n for n in range(50_000)},
    "as much as is looked at": {
        name: [{f"key{n}": n for n in range(60)}] * 8 for name in (*LISTS, "resolved", "progress")
    },
}  # fmt: skip


@pytest.mark.parametrize("case", FLOODS)
def test_a_flood_in_a_status_takes_little_time_and_the_phase_stays(case: str) -> None:
    read = read_in_time(STATUS | FLOODS[case])
    assert read is not None
    assert (read.phase, read.storage, read.attempts) == ("Failed", "s3://b/p", ())


@pytest.mark.parametrize("phase", [["Failed"] * 2_000, {str(n): n for n in range(2_000)}])
def test_a_flood_in_place_of_a_phase_is_refused(phase: Any) -> None:
    """A run that had ended would begin again."""
    assert read_in_time({"phase": phase}) is None


scalars = some.none() | some.booleans() | some.integers() | some.text(max_size=5)
items = scalars | some.lists(scalars, max_size=3) | some.dictionaries(some.text(), scalars)
floods = some.builds(lambda item, times: [item] * times, items, some.sampled_from([0, 1, 64, 3000]))


@given(some.sampled_from(sorted(FlashRunStatus.model_json_schema()["properties"])), items | floods)
@settings(max_examples=150, deadline=None)
def test_any_value_of_any_field_of_a_status_is_read_in_time(field: str, item: Any) -> None:
    read = read_in_time(STATUS | {field: item})
    assert read is None or read.phase in ("Failed", item)


def longest(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """A value with as many entries as ``schema`` allows."""
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return longest(choice, definitions)
    if "properties" in schema:
        return {key: longest(item, definitions) for key, item in schema["properties"].items()}
    if schema.get("type") == "array":
        return [longest(schema["items"], definitions)] * schema["maxItems"]
    if schema.get("type") == "object":
        return {str(number): "" for number in range(schema["maxProperties"])}
    return ""


def test_the_longest_status_that_the_operator_writes_is_within_the_bounds() -> None:
    schema = FlashRunStatus.model_json_schema()
    status = longest(schema, schema["$defs"])
    assert len(status["attempts"]) == 20
    assert bounded_fields(status, status) == status


def test_a_value_is_bounded_up_to_each_limit() -> None:
    full = [[0] * 50] * (VALUES_LIMIT // 51)
    assert is_bounded([0] * ENTRIES_LIMIT)
    assert not is_bounded([0] * (ENTRIES_LIMIT + 1))
    assert not is_bounded({str(n): n for n in range(ENTRIES_LIMIT + 1)})
    assert is_bounded(full)
    assert not is_bounded([*full, [0] * 50])


def test_a_deep_value_is_looked_at_without_recursion() -> None:
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    assert not is_bounded(deep)
    assert json.dumps(bounded_fields({"a": deep, "b": 1}, ("a", "b"))) == '{"b": 1}'
