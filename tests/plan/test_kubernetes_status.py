"""Conditions are found whatever an API object has or lacks."""

import pytest

from flashrun.plan.kubernetes_status import find_condition

READY = {"type": "Ready", "status": "True"}


@pytest.mark.parametrize(
    ("manifest", "status", "expected"),
    [
        ({}, "True", None),
        ({"status": None}, "True", None),
        ({"status": {"conditions": None}}, "True", None),
        ({"status": {"conditions": [{"type": "Other", "status": "True"}]}}, "True", None),
        ({"status": {"conditions": [READY]}}, "True", READY),
        ({"status": {"conditions": [READY]}}, "False", None),
    ],
)
def test_a_condition_is_found_by_type_and_status(manifest, status, expected) -> None:
    assert find_condition(manifest, "Ready", status) == expected
