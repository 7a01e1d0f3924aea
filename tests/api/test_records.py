"""Outcomes and the records in storage."""

import json

import pytest
from pydantic import ValidationError

from flashrun.api import exits, records, resource
from flashrun.api.config import UNUSED_KEYS, Algorithm, EnvironmentConfig, RunConfig
from flashrun.api.exits import Exit
from flashrun.api.reasons import Retry
from flashrun.plan.resolve import resolve_train


def test_every_exit_code_says_what_follows() -> None:
    assert all(code.retry in set(Retry) for code in Exit)


def test_no_code_is_both_ignored_and_failing_and_the_counted_rest_is_neither() -> None:
    ignored, failing = set(exits.IGNORED_CODES), set(exits.FAILING_CODES)
    counted = {int(code) for code in Exit if code.retry is Retry.COUNTED}

    assert ignored == {40, 41, 143}
    assert failing == {64, 65, 66, 69, 70, 71, 72}
    assert counted == {67, 75}


@pytest.mark.parametrize(
    "text",
    ["", "Killed", "{}", '{"reason": "lower", "message": "x"}', '{"reason": "Ok"}', "[1, 2]",
     '{"reason": "Fine", "message": "x", "token": "unknown keys are not ours"}'],
)  # fmt: skip
def test_a_foreign_termination_message_counts_as_none(text) -> None:
    assert exits.parse_termination(text) is None


def test_our_termination_message_is_read_back() -> None:
    left = exits.Termination(reason="RewardFailed", message="It raised.", hint="See flash log.")
    assert exits.parse_termination(left.model_dump_json()) == left


def test_credentials_do_not_show_when_printed() -> None:
    access = records.StorageAccess(
        endpoint="http://s3", bucket="b", access_key="a", secret_key="hush", session_token="hush2"
    )
    assert "hush" not in repr(access)


@pytest.mark.parametrize("digest", ["", "A" * 64, "a" * 63, "../" + "a" * 61])
def test_a_digest_is_64_hex_digits(digest) -> None:
    with pytest.raises(ValidationError):
        records.EnvironmentPointer(digest=digest, size=1, pushed="2026-01-01T00:00:00Z")


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


OLDER_SFT = (
    '{"lora_rank": 32, "lora_alpha": 64, "learning_rate": 0.0001, "batch_size": 32, '
    '"max_length": 1024, "save_every": 50, "epochs": 2, "max_steps": 7, "max_examples": 0, '
    '"steps": null, "group_size": null, "temperature": null, "max_tokens": null, '
    '"kl_penalty_coef": null, "advantage_clip": null, "thinking_length_penalty_coef": null, '
    '"stop_sequences": []}'
)
OLDER_GRPO = (
    '{"lora_rank": 32, "lora_alpha": 64, "learning_rate": 0.00001, "batch_size": 64, '
    '"max_length": 2368, "save_every": 20, "epochs": null, "max_steps": 0, "max_examples": 5, '
    '"steps": 150, "group_size": 8, "temperature": 1.0, "max_tokens": 320, '
    '"kl_penalty_coef": 0.0, "advantage_clip": null, "thinking_length_penalty_coef": 0.0, '
    '"stop_sequences": []}'
)


def test_an_sft_record_of_an_older_release_means_the_same() -> None:
    train = records.ResolvedTrain.model_validate_json(OLDER_SFT)
    assert (train.max_steps, train.max_examples, train.epochs) == (7, 0, 2)
    assert (train.stop_sequences, train.steps) == (None, None)


def test_an_sft_record_without_a_limit_keeps_its_zero() -> None:
    older = OLDER_SFT.replace('"max_steps": 7', '"max_steps": 0')
    assert records.ResolvedTrain.model_validate_json(older).max_steps == 0


def test_a_grpo_record_of_an_older_release_means_the_same() -> None:
    train = records.ResolvedTrain.model_validate_json(OLDER_GRPO)
    assert (train.max_steps, train.max_examples, train.epochs) == (None, 5, None)
    assert (train.stop_sequences, train.steps) == ((), 150)


@pytest.mark.parametrize("text", [OLDER_SFT, OLDER_GRPO])
def test_a_key_that_the_algorithm_does_not_use_is_not_written(text) -> None:
    """An older trainer, which a retry may still run, refuses a null and accepts an absent key."""
    train = records.ResolvedTrain.model_validate_json(text)
    written = json.loads(train.model_dump_json())
    assert None not in written.values()
    assert records.ResolvedTrain.model_validate(written) == train


@pytest.mark.parametrize("text", [OLDER_SFT, OLDER_GRPO])
def test_reading_a_record_changes_nothing_that_the_algorithm_uses(text) -> None:
    before = {key: value for key, value in json.loads(text).items() if value is not None}
    after = json.loads(records.ResolvedTrain.model_validate_json(text).model_dump_json())
    gone = {key: value for key, value in before.items() if key not in after}
    assert gone in ({"stop_sequences": []}, {"max_steps": 0})
    assert {**gone, **after} == before


@pytest.mark.parametrize("algorithm", Algorithm)
def test_only_keys_that_the_algorithm_uses_have_values(algorithm: Algorithm) -> None:
    environment = EnvironmentConfig(id="org/env")
    config = RunConfig(model="m", algorithm=algorithm, environment=environment)
    values = resolve_train(config).model_dump(mode="json")

    assert not values.keys() & UNUSED_KEYS[algorithm]
    assert ("epochs" in values) == (algorithm is Algorithm.SFT)
    assert ("steps" in values) == (algorithm is Algorithm.GRPO)
