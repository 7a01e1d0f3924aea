"""The platform's settings: what an administrator can get wrong."""

import pytest
from pydantic import ValidationError

from flashrun.api.platform import Platform

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
    ("a pool twice", {"pools": [{"name": "x", "vram": 1}] * 2},
     "pools: x is there 2 times, and may be once"),
    ("a model twice", {"models": [{"id": "a/b", "parameters": 1}] * 2}, "models: a/b is there 2"),
    ("half of a bracket", {"trainer": {"hubEndpoint": "https://[::1"}}, "hubEndpoint"),
    ("a port that is no number", {"trainer": {"proxy": {"http_proxy": "p:abc"}}},
     "http_proxy is not the address of a proxy"),
    ("a request that is no quantity", {"pools": [{"name": "x", "vram": 1, "cpu": "four"}]}, "cpu"),
    ("more GPUs a run than a node has", {"pools": [{"name": "x", "vram": 1, "gpusPerRun": 2}]},
     "a run may use 1 x 1 GPUs here"),
    ("more GPUs a run than all its nodes have",
     {"pools": [{"name": "x", "vram": 1, "gpusPerNode": 8, "maxNodes": 2, "gpusPerRun": 24}]},
     "a run may use 2 x 8 GPUs here"),
    ("a node and a half",
     {"pools": [{"name": "x", "vram": 1, "gpusPerNode": 8, "maxNodes": 2, "gpusPerRun": 12}]},
     "use a multiple of gpusPerNode = 8"),
    ("no GPU at all", {"pools": [{"name": "x", "vram": 1, "gpusPerRun": 0}]}, "gpusPerRun"),
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
