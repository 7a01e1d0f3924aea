"""A config is read from files and checked against the platform."""

import pytest

from flashrun.api.public import PublicPlatform
from tests.cli.shell import REFERENCE, Shell


def test_all_problems_are_listed_and_end_with_2(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE.replace("epochs = 3", "epochs = 0") + "stepz = 1\n")
    done = shell("train", "config.toml", "--dry-run")

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: config.toml:8: train.epochs must be at least 1, not 0",
        "error: config.toml:11: stepz is not a key of [train]; did you mean steps?",
    ]


LIMITS = [
    ("model=Qwen/Qwen3.5-4b", "--set model: 'Qwen/Qwen3.5-4b' is not in the catalog; did you mean"),
    ("train.lora_rank=65", "--set train.lora_rank: 65 is above Qwen/Qwen3.5-4B's cap"),
    ("train.max_length=9000", "--set train.max_length: 9000 is above Qwen/Qwen3.5-4B's context"),
]


@pytest.mark.parametrize(("assignment", "sentence"), LIMITS)
def test_the_limits_of_the_catalog_name_their_key(
    shell: Shell, assignment: str, sentence: str
) -> None:
    done = shell("train", "config.toml", "--dry-run", "--set", assignment)

    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}")


def test_an_address_for_pip_needs_a_host_that_the_platform_allows(shell: Shell) -> None:
    pip = 'environment.pip=["own @ https://h.example/own-1.whl"]'
    refused = shell("train", "config.toml", "--dry-run", "--set", pip)
    assert refused.returncode == 2
    assert "--set environment.pip: h.example is not an allowed package host" in refused.stderr

    told = PublicPlatform.validate_manifest({"pipUrlHosts": ["h.example"]})
    shell.write(".cache/flashrun/platform.json", told.model_dump_json(by_alias=True))
    assert shell("train", "config.toml", "--dry-run", "--set", pip).returncode == 0


def test_a_config_may_come_from_a_pipe(shell: Shell) -> None:
    assert shell("train", "-", "--dry-run", stdin=REFERENCE).returncode == 0
    assert "<stdin>:1" in shell("train", "-", "--dry-run", stdin="quux = 1").stderr
