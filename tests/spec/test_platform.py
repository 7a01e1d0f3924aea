"""The platform's settings: what an administrator can get wrong."""

import pytest
from pydantic import ValidationError

from flashrun.spec.platform import Platform

SETTINGS = {
    "storage": {"endpoint": "https://s3.example"},
    "trainer": {"image": "registry.example/trainer@sha256:1"},
    "pools": [{"name": "a100", "vram": 80}],
}

WRONG = [
    ("an unknown key", {"trainer": {"retris": 3}}, "retris"),
    ("an endpoint with a path", {"storage": {"endpoint": "https://s3.example/bucket"}}, "endpoint"),
    ("less grace than an upload may take", {"trainer": {"graceSeconds": 300}}, "graceSeconds"),
    ("no pool", {"pools": []}, "pools"),
    ("a request that is no quantity", {"pools": [{"name": "x", "vram": 1, "cpu": "four"}]}, "cpu"),
]  # fmt: skip


def _merged(changes: dict) -> dict:
    merged = dict(SETTINGS)
    for key, value in changes.items():
        merged[key] = {**merged[key], **value} if isinstance(value, dict) else value
    return merged


def test_the_least_settings_are_enough() -> None:
    platform = Platform.validate_manifest(SETTINGS)
    assert platform.trainer.grace_seconds > platform.trainer.upload_timeout_seconds


@pytest.mark.parametrize(
    ("changes", "place"), [row[1:] for row in WRONG], ids=[r[0] for r in WRONG]
)
def test_wrong_settings_are_refused_by_name(changes: dict, place: str) -> None:
    with pytest.raises(ValidationError, match=place):
        Platform.validate_manifest(_merged(changes))
