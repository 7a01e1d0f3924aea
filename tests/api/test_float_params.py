"""Floats that are whole numbers stay floats, although the API server keeps 2.0 as 2."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from flashrun.api.config import RunConfig
from flashrun.api.float_params import whole_floats, with_floats
from flashrun.api.resource import FlashRunSpec

PARAMS = {
    "temperature": 2.0,
    "steps": 2,
    "half": 0.5,
    "a/b~c": {"rates": [1.0, 1, 0.25, {"x": -3.0}]},
    "large": 1e21,
    "on": True,
}
PLACES = ("/temperature", "/a~1b~0c/rates/0", "/a~1b~0c/rates/3/x", "/large")


def as_the_api_server(value: Any) -> Any:
    """Return what the API server gives back."""
    if isinstance(value, dict):
        return {key: as_the_api_server(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_the_api_server(item) for item in value]
    kept_as_integer = isinstance(value, float) and value.is_integer() and abs(value) < 2**63
    return int(value) if kept_as_integer else value


def test_places_are_json_pointers() -> None:
    assert whole_floats(PARAMS) == PLACES


json_values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text() | some.floats(-1e300, 1e300)
    | some.integers(-9, 9).map(float),
    lambda items: some.lists(items, max_size=4) | some.dictionaries(some.text(), items, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(some.dictionaries(some.text(), json_values, max_size=4))
def test_any_params_come_back_with_their_types(params: dict[str, Any]) -> None:
    kept = as_the_api_server(params)
    before = json.dumps(kept)
    found = with_floats(kept, whole_floats(params))

    assert json.dumps(found) == json.dumps(params).replace("-0.0", "0.0")
    assert json.dumps(kept) == before  # what was given is not changed


@pytest.mark.parametrize(
    "place",
    ["", "/", "/absent", "/steps/0", "/a~1b~0c/rates/9", "/a~1b~0c/rates/²", "/on", "x/y/z"],
)
def test_a_place_without_an_integer_is_passed_over(place: str) -> None:
    assert json.dumps(with_floats(PARAMS, [place])) == json.dumps(PARAMS)


def test_a_spec_says_which_params_are_floats_and_reads_them_back() -> None:
    table = {"model": "org/m", "algorithm": "sft", "environment": {"id": "a/b", "params": PARAMS}}
    spec = FlashRunSpec.from_config(RunConfig.validate_toml(table))
    stored = as_the_api_server(spec.to_manifest())
    read = FlashRunSpec.validate_stored(stored)

    assert json.dumps(read.environment.params) == json.dumps(PARAMS)
    assert read == spec


@pytest.mark.parametrize("places", [["/steps", 3], "x", {"a": 1}, [None]])
def test_what_lists_no_places_is_refused(places: Any) -> None:
    table = {"model": "org/m", "environment": {"id": "a/b", "params": {"steps": 2}}}
    with pytest.raises(ValueError, match="floatParams"):
        FlashRunSpec.validate_manifest({**table, "floatParams": places})
