"""The custom resource: two spellings of its keys, and its status."""

import pytest
from pydantic import ValidationError

from flashrun.api import resource


def test_toml_and_manifest_spell_the_same_config() -> None:
    toml = {
        "model": "m",
        "environment": {"id": "a/b", "params": {"snake_case": 1, "camelCase": 2}},
        "train": {"lora_rank": 8},
        "worker_env": {"SOME_FLAG": "on"},
    }
    config = resource.FlashRunSpec.validate_toml(toml)
    manifest = config.to_manifest()

    assert manifest["train"] == {"loraRank": 8}
    assert manifest["environment"]["params"] == {"snake_case": 1, "camelCase": 2}
    assert manifest["workerEnv"] == {"SOME_FLAG": "on"}
    assert resource.FlashRunSpec.validate_manifest(manifest) == config


@pytest.mark.parametrize(
    ("validate", "train"),
    [(resource.FlashRunSpec.validate_toml, {"loraRank": 8}),
     (resource.FlashRunSpec.validate_manifest, {"lora_rank": 8})],
)  # fmt: skip
def test_the_other_spelling_is_an_unknown_key(validate, train) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        validate({"model": "m", "environment": {"id": "a/b"}, "train": train})


def test_a_patch_of_the_status_removes_what_is_unset() -> None:
    patch = resource.FlashRunStatus().to_patch()
    assert patch["phase"] == "Pending"
    assert (patch["failure"], patch["pending"], patch["startTime"]) == (None, None, None)
