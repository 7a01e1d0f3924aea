"""The schema of the chart's values: Helm refuses by it what the operator would refuse."""

from typing import Any

import jsonschema
import pytest

from flashrun.api.generate import chart_values

LEAST: dict[str, Any] = {
    "operator": {"image": "registry.example/operator@sha256:1"},
    "storage": {"endpoint": "https://s3.example"},
    "trainer": {"image": "registry.example/trainer@sha256:1"},
    "pools": [{"name": "a100", "vram": 80}],
}
SCHEMA = chart_values.schema()


def merged(changes: dict[str, Any]) -> dict[str, Any]:
    return {
        **LEAST,
        **{
            key: {**LEAST.get(key, {}), **value} if isinstance(value, dict) else value
            for key, value in changes.items()
        },
    }


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_least_values_are_enough_and_global_is_allowed() -> None:
    jsonschema.validate(LEAST, SCHEMA)
    jsonschema.validate({**LEAST, "global": {"anything": 1}}, SCHEMA)


REFUSED: dict[str, dict[str, Any]] = {
    "an unknown key": {"operatr": {}},
    "an unknown key of the operator": {"operator": {"replica": 2}},
    "a number of replicas in words": {"operator": {"replicas": "two"}},
    "no pool": {"pools": []},
    "a comparison without an operator": {"namespaceSelector": {"matchExpressions": [{"key": "a"}]}},
    "a namespace that cannot exist": {"namespaces": ["Team_A"]},
    "an empty image": {"operator": {"image": ""}},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED.keys())
def test_wrong_values_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(changes), SCHEMA)
