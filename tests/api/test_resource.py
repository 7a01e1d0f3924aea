"""The custom resource: two spellings of its keys, and its status."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from flashrun.api import resource
from tests.api.test_record_reader import any_json, changed, places


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


SPEC = {"model": "m", "environment": {"id": "a/b"}, "train": {"loraRank": 8}}
STATUS = {"phase": "Running", "conditions": [], "resolved": {}, "attempts": [], "checkpoints": []}


@given(some.data())
@settings(max_examples=200, deadline=None)
def test_any_spec_and_status_are_read_or_refused(data: some.DataObject) -> None:
    """An older API server, or one without the CRD's rules, may store anything."""
    for valid in (SPEC, STATUS):
        place = data.draw(some.sampled_from(places(valid)))
        value = changed(valid, place, data.draw(any_json))
        manifest = {
            "metadata": {"name": "run", "namespace": "team"},
            "spec": value if valid is SPEC else SPEC,
            "status": value if valid is STATUS else {},
        }
        with suppress(ValidationError):
            resource.FlashRun.from_manifest(manifest)
