"""``--dry-run`` prints every value with where it came from."""

import json

import pytest

from tests.cli.shell import REFERENCE, Shell


def test_dry_run_prints_every_value_with_where_it_came_from(shell: Shell) -> None:
    done = shell("train", "config.toml", "--dry-run", "--set", "train.lora_rank=16")

    assert done.returncode == 0
    assert done.stderr == ""
    assert (
        done.stdout
        == """\
model = "Qwen/Qwen3.5-4B"  # config.toml:1
algorithm = "sft"          # config.toml:2
thinking = false           # default

[environment]
id = "your-org/your-env"   # config.toml:5

[train]
lora_rank = 16             # --set train.lora_rank
lora_alpha = 64            # recipe
learning_rate = 0.0001     # recipe
batch_size = 32            # recipe
max_length = 1024          # recipe
save_every = 50            # recipe
epochs = 3                 # config.toml:8
max_steps = 0              # recipe
max_examples = 1000        # config.toml:9

[eval]
# split                    # eval, if the environment has dataset/eval.jsonl
# every                    # at every save
max_examples = 64          # default
samples = 1                # default
max_tokens = 320           # default
metric = "score"           # default

# chosen by the platform: name, pool, GPUs, image, version of the environment and the model
"""
    )


def test_dry_run_has_no_name_to_print(shell: Shell) -> None:
    for words in (("train", "config.toml"), ("rerun", "flash-1795370000-3fa9c1d2")):
        done = shell(*words, "--dry-run", "-o", "name")

        assert done.returncode == 2
        assert "a dry run creates no run, so it has no name to print" in done.stderr


def test_dry_run_fills_in_the_other_recipe(shell: Shell) -> None:
    words = ("--set", "algorithm=grpo", "--set", "thinking=true", "-o", "json")
    done = shell("train", "config.toml", "--dry-run", *words)
    answer = json.loads(done.stdout)

    assert "epochs: not used by grpo" in done.stderr
    assert answer["state"] == "dry_run"
    assert answer["sources"]["algorithm"] == "--set algorithm"
    assert answer["spec"]["train"] == {
        "lora_rank": 32,
        "lora_alpha": 64,
        "learning_rate": 1e-5,
        "batch_size": 64,
        "max_length": 3584,
        "save_every": 20,
        "max_examples": 1000,
        "steps": 150,
        "group_size": 8,
        "temperature": 1.0,
        "max_tokens": 1536,
        "kl_penalty_coef": 0.0,
        "thinking_length_penalty_coef": 0.0,
    }


@pytest.mark.parametrize("algorithm", ["sft", "grpo"])
def test_what_dry_run_prints_is_a_config_again(shell: Shell, algorithm: str) -> None:
    shell.write(
        "rich.toml",
        REFERENCE.replace("[train]", 'params = {a = {b = ["x", 1]}, "c d" = "é\\n"}\n[train]')
        + '[worker_env]\nFLAG = "on"\n[wandb]\nproject = "p"\n[budget]\ngpu_hours = 2.5\n',
    )
    first = shell("train", "rich.toml", "--dry-run", "--set", f"algorithm={algorithm}").stdout
    shell.write("again.toml", first)
    again = shell("train", "again.toml", "--dry-run", "-o", "json").stdout
    once = shell("train", "rich.toml", "--dry-run", "--set", f"algorithm={algorithm}", "-o", "json")

    assert json.loads(again)["spec"] == json.loads(once.stdout)["spec"]
    assert json.loads(again)["spec"]["budget"] == {"gpu_hours": 2.5}


def test_an_adapter_brings_its_own_rank(shell: Shell) -> None:
    shell.write("warm.toml", REFERENCE.replace("lora_rank = 32", 'init_from_adapter = "flash-1-a"'))

    assert "# lora_rank" in shell("train", "warm.toml", "--dry-run").stdout
