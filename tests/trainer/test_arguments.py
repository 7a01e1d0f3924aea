"""From the resolved spec to arguments: every key of the reference has its place."""

from pathlib import Path

import pytest

from flashrun.spec.outcome import Exit
from flashrun_trainer import arguments
from flashrun_trainer.arguments import Machine, Split
from flashrun_trainer.failures import TrainerError
from tests.trainer.pods import resolved

CPU, GPU = Machine(), Machine(gpu=True)
OUT = Path("out")


@pytest.mark.parametrize(
    ("sentence", "sequences", "most", "expected"),
    [
        ("all at once where it fits", 32, 32, Split(32, 1)),
        ("in equal passes where it does not", 32, 12, Split(8, 4)),
        ("one by one at worst", 7, 3, Split(1, 7)),
        ("even where not one fits", 4, 0, Split(1, 4)),
    ],
)
def test_a_step_is_cut_up(sentence: str, sequences: int, most: int, expected: Split):
    assert arguments.split(sequences, most) == expected
    assert expected.at_once * expected.passes == sequences


@pytest.mark.parametrize(
    ("sentence", "rows", "knobs", "steps"),
    [
        ("whole batches", 64, {"epochs": 2}, 16),
        ("the last batch is smaller", 65, {"epochs": 2}, 18),
        ("fewer rows than a batch", 3, {"epochs": 2}, 2),
        ("capped", 64, {"epochs": 2, "max_steps": 5}, 5),
        ("a cap that is not reached", 64, {"epochs": 2, "max_steps": 500}, 16),
    ],
)
def test_sft_steps_are_counted_beforehand(sentence: str, rows: int, knobs: dict, steps: int):
    run = resolved("sft", **knobs)
    assert arguments.sft_steps(run, rows) == steps
    assert arguments.sft(run, CPU, OUT, rows)["max_steps"] == steps


@pytest.mark.parametrize(
    ("key", "value", "name", "expected"),
    [
        ("learning_rate", 3e-4, "learning_rate", 3e-4),
        ("save_every", 7, "save_steps", 7),
        ("batch_size", 16, "per_device_train_batch_size", 16),
        ("max_length", 77, "max_length", None),
    ],
)
def test_sft_keys_reach_their_arguments(key: str, value: object, name: str, expected: object):
    assert arguments.sft(resolved("sft", **{key: value}), CPU, OUT, 64)[name] == expected


def test_sft_warms_up_for_three_percent_of_its_steps():
    run = resolved("sft", batch_size=1, epochs=1)
    assert arguments.sft(run, CPU, OUT, 1000)["warmup_steps"] == 30


@pytest.mark.parametrize(
    ("key", "value", "name", "expected"),
    [
        ("learning_rate", 3e-5, "learning_rate", 3e-5),
        ("save_every", 7, "save_steps", 7),
        ("steps", 11, "max_steps", 11),
        ("group_size", 6, "num_generations", 6),
        ("temperature", 0.7, "temperature", 0.7),
        ("max_tokens", 9, "max_completion_length", 9),
        ("kl_penalty_coef", 0.2, "beta", 0.2),
    ],
)
def test_grpo_keys_reach_their_arguments(key: str, value: object, name: str, expected: object):
    assert arguments.grpo(resolved("grpo", **{key: value}), CPU, OUT, 64)[name] == expected


def test_advantage_clip_reaches_nothing():
    plain = resolved("grpo")
    train = plain.train.model_copy(update={"advantage_clip": 0.5})
    clipped = plain.model_copy(update={"train": train})
    assert arguments.grpo(plain, CPU, OUT, 64) == arguments.grpo(clipped, CPU, OUT, 64)


@pytest.mark.parametrize("machine", [CPU, GPU])
def test_a_grpo_step_is_one_generation_of_all_its_completions(machine: Machine):
    run = resolved("grpo", batch_size=6, group_size=4, max_length=4096, max_tokens=1024)
    found = arguments.grpo(run, machine, OUT, 64)
    assert found["steps_per_generation"] == found["gradient_accumulation_steps"]
    passes = found["gradient_accumulation_steps"]
    assert found["per_device_train_batch_size"] * passes == 24


def test_a_grpo_step_has_no_more_prompts_than_there_are():
    found = arguments.grpo(resolved("grpo", batch_size=64, group_size=4), CPU, OUT, 3)
    assert found["per_device_train_batch_size"] == 12


def test_a_gpu_takes_bf16_and_a_cpu_float32():
    for machine, bf16 in ((CPU, False), (GPU, True)):
        found = arguments.sft(resolved("sft"), machine, OUT, 64)
        assert (found["bf16"], found["use_cpu"]) == (bf16, not bf16)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(TrainerError) as error:
        arguments.grpo(resolved("grpo", temperature=0.0), CPU, OUT, 64)
    assert error.value.code == Exit.CONFIG


def test_a_fresh_adapter_has_rank_alpha_and_no_dropout():
    found = arguments.lora(resolved("sft", lora_rank=4, lora_alpha=12), "all-linear")
    assert (found["r"], found["lora_alpha"], found["lora_dropout"]) == (4, 12, 0.0)


def test_prompts_leave_room_for_a_whole_completion():
    assert arguments.longest_prompt(resolved("grpo", max_length=100, max_tokens=30)) == 70
