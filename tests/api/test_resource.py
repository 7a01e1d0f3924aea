"""The custom resource: two spellings of its keys, and its status."""

from contextlib import suppress
from typing import Any

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


def stored(spec: dict[str, Any], status: dict[str, Any] | None = None) -> dict[str, Any]:
    """A FlashRun as the API server has it."""
    base = {"model": "Qwen/Qwen3.5-4B", "environment": {"id": "team-a/sums"}}
    metadata = {"name": "old", "namespace": "team-a", "uid": "u"}
    return {"metadata": metadata, "spec": base | spec, "status": status or {}}


TOKEN = "hf_" + "abcdefghij" * 3
ACCEPTED_ONCE: dict[str, tuple[dict[str, Any], str]] = {
    "a project with a slash": ({"wandb": {"project": "a/b"}}, "wandb.project"),
    "a long name": ({"wandb": {"runName": "x" * 200}}, "wandb.runName"),
    "a token in a parameter": (
        {"environment": {"id": "team-a/sums", "params": {"key": TOKEN}}},
        "environment.params.key",
    ),
    "a variable that the platform sets": ({"workerEnv": {"PYTHONPATH": "/x"}}, "workerEnv"),
    "a flood of values": (
        {"environment": {"id": "team-a/sums", "params": {"x": [0] * 5000}}},
        "environment.params",
    ),
    "a secret that is none": (
        {"environment": {"id": "team-a/sums", "secrets": ["LD_PRELOAD"]}},
        "environment.secrets.0",
    ),
}


@pytest.mark.parametrize("case", ACCEPTED_ONCE)
def test_what_an_earlier_version_accepted_is_read_as_it_is_and_refused_in_new_runs(
    case: str,
) -> None:
    spec, key = ACCEPTED_ONCE[case]
    manifest = stored(spec, {"phase": "Succeeded"})
    run = resource.FlashRun.from_manifest(manifest)
    assert run.status.phase == "Succeeded"
    assert run.spec.to_manifest() == manifest["spec"]
    [sentence] = run.refused_values()
    assert sentence.startswith(key)
    assert TOKEN not in sentence
    with pytest.raises(ValidationError):
        resource.FlashRunSpec.validate_manifest(manifest["spec"])


DANGEROUS: dict[str, dict[str, Any]] = {
    "a path as an environment": {"environment": {"id": "../secrets"}},
    "a split that is a path": {"environment": {"id": "a/b", "params": {"split": "../x"}}},
    "an option of pip": {"environment": {"id": "a/b", "pip": ["--index-url=http://x"]}},
}


@pytest.mark.parametrize("case", DANGEROUS)
def test_what_was_never_allowed_is_not_read_from_the_cluster_either(case: str) -> None:
    with pytest.raises(ValidationError):
        resource.FlashRun.from_manifest(stored(DANGEROUS[case]))


STATUSES: dict[str, dict[str, Any]] = {
    "a field of a newer version": {"newField": {"a": 1}},
    "an inner field of a newer version": {"resolved": {"image": "i", "newField": 1}},
    "an item that lacks a field": {"checkpoints": [{"ref": "r"}, {"step": 1}]},
    "a number that is text": {"gpuSeconds": "many"},
    "everything of another type": {"conditions": 1, "progress": [], "attempts": "x"},
}


@pytest.mark.parametrize("case", STATUSES)
def test_what_cannot_be_read_of_a_status_is_left_out(case: str) -> None:
    status = {"phase": "Failed", "storage": "s3://b/p"} | STATUSES[case]
    read = resource.FlashRun.from_manifest(stored({}, status)).status
    assert (read.phase, read.storage) == ("Failed", "s3://b/p")
    if "resolved" in status:
        assert read.resolved is not None
        assert read.resolved.image == "i"


def test_no_phase_is_assumed_where_it_cannot_be_read() -> None:
    """A finished run would begin again."""
    with pytest.raises(ValidationError):
        resource.FlashRun.from_manifest(stored({}, {"phase": "Archived"}))
