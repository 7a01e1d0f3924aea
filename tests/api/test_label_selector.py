"""Selectors of namespaces: as the API server reads them, and what is wrong in them."""

import pytest

from flashrun.api.label_selector import LabelSelector
from flashrun.api.platform import Platform

ROWS = [
    ("a value", {"matchLabels": {"team": "ml", "a/b": ""}}, ("team=ml", "a/b=")),
    ("a list", ("In", "x", "y"), ("key in (x,y)",)),
    ("another list", ("NotIn", "x"), ("key notin (x)",)),
    ("any value", ("Exists",), ("key",)),
    ("none", ("DoesNotExist",), ("!key",)),
]


def selector(given: dict | tuple) -> dict:
    if isinstance(given, dict):
        return given
    operator, *values = given
    requirement = {"key": "key", "operator": operator} | ({"values": values} if values else {})
    return {"matchExpressions": [requirement]}


@pytest.mark.parametrize(
    ("given", "conditions"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_conditions_are_written_as_the_api_server_reads_them(given, conditions) -> None:
    assert LabelSelector.validate_manifest(selector(given)).conditions == conditions


REST = {
    "storage": {"endpoint": "http://s3.example"},
    "trainer": {"image": "trainer@sha256:1"},
    "pools": [{"name": "small", "vram": 24}],
}
REFUSED = [
    ("no way", {"namespaces": []}, "alternatives"),
    ("two ways", {"namespaces": ["a"], "allNamespaces": True}, "alternatives"),
    ("an empty selector", {"namespaceSelector": {}}, "is empty"),
    ("a list without values", {"namespaceSelector": selector(("In",))}, "needs values"),
    ("values of no list", {"namespaceSelector": selector(("Exists", "x"))}, "takes no values"),
    ("another operator", {"namespaceSelector": selector(("Like", "x"))}, "Exists"),
]


@pytest.mark.parametrize(
    ("changes", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_namespaces_are_chosen_in_one_way(changes, words) -> None:
    with pytest.raises(ValueError, match=words):
        Platform.validate_manifest(REST | changes)
    followed = Platform.validate_manifest(REST | {"allNamespaces": True})
    assert followed.follows_namespaces
