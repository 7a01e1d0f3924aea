"""``flash explain``: the meaning of config keys."""

import json

import pytest
import yaml

from tests.cli.shell import Shell


@pytest.mark.parametrize("word", ["train.max_length", "max_length", "max-length", "MAX_LENGTH"])
def test_a_key_may_be_named_in_full_or_in_short(shell: Shell, word: str) -> None:
    assert (
        shell("explain", word).stdout
        == """\
Key:         train.max_length
Meaning:     Longest sequence in tokens, prompt and completion together.
Type:        integer; at least 1, at most 10,000,000
Used by:     sft and grpo
Left out:    1024 (2048 with thinking) for sft, 2368 (3584 with thinking) for grpo
Example:     max_length = 4096
"""
    )


MISTAKES = [
    ("stepz", "did you mean train.steps?"),
    ("train.lora_rang", "did you mean train.lora_rank?"),
    ("zzzzzz", "flash explain lists all keys"),
]


@pytest.mark.parametrize(("word", "hint"), MISTAKES)
def test_an_unknown_key_gets_the_nearest_one(shell: Shell, word: str, hint: str) -> None:
    done = shell("explain", word)

    assert done.returncode == 2
    assert hint in done.stderr


def test_the_name_that_another_tool_uses_is_understood(shell: Shell) -> None:
    assert shell("explain", "num_generations", "-o", "name").stdout == "train.group_size\n"


def test_a_table_lists_its_keys(shell: Shell) -> None:
    names = shell("explain", "environment", "-o", "name").stdout.split()

    assert names == [f"environment.{key}" for key in ("id", "params", "pip", "secrets")]


def test_every_key_has_a_meaning_and_a_type(shell: Shell) -> None:
    listed = json.loads(shell("explain", "-o", "json").stdout)
    by_name = {key["name"]: key for key in listed}

    assert all(key["meaning"] and key["type"] and key["used_by"] for key in listed)
    assert by_name["train.learning_rate"]["default"] == {"sft": 1e-4, "grpo": 1e-5}
    assert by_name["train.epochs"]["used_by"] == ["sft"]
    assert [name for name, key in by_name.items() if key["required"]] == ["model", "environment.id"]
    assert yaml.safe_load(shell("explain", "-o", "yaml").stdout) == listed


def test_a_stop_sequence_is_said_to_be_absent_from_what_is_scored(shell: Shell) -> None:
    assert "with </answer>, they see <answer>42" in shell("explain", "stop_sequences").stdout


@pytest.mark.parametrize("key", ["budget.gpu_hours", "eval.every"])
def test_a_key_of_our_own_is_called_an_extension_of_the_reference(shell: Shell, key: str) -> None:
    assert "(An extension of the reference.)" in shell("explain", key).stdout
