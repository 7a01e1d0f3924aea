"""The records in storage."""

import json

import pytest
from pydantic import ValidationError

from flashrun.api import records
from flashrun.api.config import UNUSED_KEYS, Algorithm, EnvironmentConfig, RunConfig
from flashrun.plan.resolve import resolve_train


def test_credentials_do_not_show_when_printed() -> None:
    access = records.StorageAccess(
        endpoint="http://s3", bucket="b", access_key="a", secret_key="hush", session_token="hush2"
    )
    assert "hush" not in repr(access)


@pytest.mark.parametrize("digest", ["", "A" * 64, "a" * 63, "../" + "a" * 61])
def test_a_digest_is_64_hex_digits(digest) -> None:
    with pytest.raises(ValidationError):
        records.EnvironmentPointer(digest=digest, size=1, pushed="2026-01-01T00:00:00Z")


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


def checkpoint_record(**more: object) -> dict[str, object]:
    return {"kind": "checkpoint", "created": "2026-01-01T00:00:00Z", "files": [], **more}


def test_a_manifest_without_an_evaluation_is_written_as_older_releases_read_it() -> None:
    written = records.Manifest.model_validate(checkpoint_record()).model_dump_json()

    assert "evaluation" not in written


def test_a_manifest_keeps_its_evaluation() -> None:
    evaluation = {"metric": "exact", "score": 0.5, "metrics": {"score": 0.25}}
    record = records.Manifest.model_validate(checkpoint_record(evaluation=evaluation))

    assert json.loads(record.model_dump_json())["evaluation"] == evaluation


HOSTILE_EVALUATIONS = [
    {"metric": "m", "score": float("nan")},
    {"metric": "m", "score": float("-inf")},
    {"metric": "m" * 257, "score": 0.5},
    {"metric": "m", "score": 0.5, "metrics": {f"m{number}": 0.5 for number in range(257)}},
    {"metric": "m", "score": 0.5, "metrics": {"m" * 257: 0.5}},
    {"metric": "m", "score": "0.5x"},
    {"metric": "m"},
]


@pytest.mark.parametrize("evaluation", HOSTILE_EVALUATIONS)
def test_an_evaluation_outside_its_bounds_breaks_its_manifest(evaluation) -> None:
    with pytest.raises(ValidationError):
        records.Manifest.model_validate(checkpoint_record(evaluation=evaluation))


def test_the_name_of_a_metric_is_one_clean_line() -> None:
    point = {"step": 20, "score": 0.5}
    record = records.Evaluation.model_validate({"metric": "a\nb\x1b[31m", "last": point})

    assert record.metric == "a b[31m"


@pytest.mark.parametrize(
    "point",
    [{"step": -1, "score": 0.5}, {"step": 2**63, "score": 0.5}, {"step": 1, "score": float("inf")}],
)
def test_a_point_of_an_evaluation_is_bounded(point) -> None:
    with pytest.raises(ValidationError):
        records.Evaluation.model_validate({"metric": "score", "best": point})
