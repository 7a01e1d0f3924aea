"""From the resolved spec to arguments: every key of the reference has its place."""

from pathlib import Path

import pytest

from flashrun.api.exits import Exit
from flashrun_trainer import trl_arguments
from flashrun_trainer.pod.trainer_errors import TrainerError
from flashrun_trainer.trl_arguments import Machine
from tests.trainer.pods import resolved

CPU, GPU = Machine(), Machine(gpu=True)
OUT = Path("out")


@pytest.mark.parametrize(
    ("sentence", "sequences", "most", "expected"),
    [
        ("all at once where it fits", 32, 32, (32, 1)),
        ("in equal micro-batches where it does not", 32, 12, (8, 4)),
        ("one by one at worst", 7, 3, (1, 7)),
        ("even where not one fits", 4, 0, (1, 4)),
    ],
)
def test_a_step_is_divided_into_micro_batches(
    sentence: str, sequences: int, most: int, expected: tuple[int, int]
):
    assert trl_arguments.divide_step(sequences, most) == expected
    assert expected[0] * expected[1] == sequences


@pytest.mark.parametrize(
    ("key", "value", "name", "expected"),
    [
        ("learning_rate", 3e-4, "learning_rate", 3e-4),
        ("save_every", 7, "save_steps", 7),
        # Examples arrive cut and batched: TRL must not do that again.
        ("max_length", 77, "max_length", None),
        ("batch_size", 16, "per_device_train_batch_size", 1),
    ],
)
def test_sft_keys_reach_their_arguments(key: str, value: object, name: str, expected: object):
    assert trl_arguments.sft(resolved("sft", **{key: value}), CPU, OUT, 1, 8)[name] == expected


def test_sft_warms_up_for_three_percent_of_its_steps_and_ends_with_the_last():
    found = trl_arguments.sft(resolved("sft"), CPU, OUT, gradient_accumulation_steps=4, steps=1000)
    assert (found["warmup_steps"], found["max_steps"]) == (30, 1000)
    assert found["gradient_accumulation_steps"] == 4


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
    assert trl_arguments.grpo(resolved("grpo", **{key: value}), CPU, OUT, 64)[name] == expected


def test_advantage_clip_reaches_nothing():
    plain = resolved("grpo")
    train = plain.train.model_copy(update={"advantage_clip": 0.5})
    clipped = plain.model_copy(update={"train": train})
    assert trl_arguments.grpo(plain, CPU, OUT, 64) == trl_arguments.grpo(clipped, CPU, OUT, 64)


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("gpu", [False, True])
def test_a_grpo_step_is_one_generation_so_that_every_save_ends_one(gpu: bool, processes: int):
    run = resolved("grpo", batch_size=6, group_size=4, max_length=4096, max_tokens=1024)
    found = trl_arguments.grpo(run, Machine(gpu=gpu, world_size=processes), OUT, 64)
    accumulation = found["gradient_accumulation_steps"]
    assert (found["steps_per_generation"], found["num_iterations"]) == (accumulation, 1)
    assert found["per_device_train_batch_size"] * accumulation * processes == 24
    assert found["save_steps"] == run.train.save_every


@pytest.mark.parametrize(
    ("sentence", "batch", "group", "prompts", "processes", "taken"),
    [
        ("as many as the config says", 8, 4, 64, 1, 8),
        ("no more than there are", 64, 4, 3, 1, 3),
        ("a group may be split over processes", 4, 4, 64, 8, 4),
        ("the same number of completions for every process", 3, 3, 64, 2, 2),
    ],
)
def test_a_grpo_step_takes_prompts(
    sentence: str, batch: int, group: int, prompts: int, processes: int, taken: int
):
    run = resolved("grpo", batch_size=batch, group_size=group)
    machine = Machine(world_size=processes)
    assert trl_arguments.prompts_per_step(run, prompts, processes) == taken
    found = trl_arguments.grpo(run, machine, OUT, prompts)
    accumulation = found["gradient_accumulation_steps"]
    assert found["per_device_train_batch_size"] * accumulation * processes == taken * group


def test_completions_that_cannot_be_divided_are_refused():
    with pytest.raises(TrainerError) as error:
        trl_arguments.grpo(
            resolved("grpo", batch_size=1, group_size=3), Machine(world_size=2), OUT, 9
        )
    assert error.value.code == Exit.CONFIG
    assert "1 prompts with 3 completions each cannot be divided among 2 GPUs" in error.value.message
    assert "a multiple of 2" in error.value.hint


def test_grpo_follows_the_recipe():
    found = trl_arguments.grpo(resolved("grpo"), CPU, OUT, 64)
    recipe = {
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "num_iterations": 1,
        "top_p": 1.0,
        "lr_scheduler_type": "constant",
        "disable_dropout": True,
        "mask_truncated_completions": False,  # data.stopping decides what is masked
    }
    assert {name: found[name] for name in recipe} == recipe


def test_a_gpu_takes_bf16_and_a_cpu_float32():
    for machine, bf16 in ((CPU, False), (GPU, True)):
        found = trl_arguments.sft(resolved("sft"), machine, OUT, 1, 8)
        assert (found["bf16"], found["use_cpu"]) == (bf16, not bf16)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(TrainerError) as error:
        trl_arguments.grpo(resolved("grpo", temperature=0.0), CPU, OUT, 64)
    assert error.value.code == Exit.CONFIG


def test_a_fresh_adapter_has_rank_alpha_and_no_dropout():
    found = trl_arguments.lora(resolved("sft", lora_rank=4, lora_alpha=12), ["q_proj"], None)
    assert (found["r"], found["lora_alpha"], found["lora_dropout"]) == (4, 12, 0.0)


def test_prompts_leave_room_for_a_whole_completion():
    assert trl_arguments.longest_prompt(resolved("grpo", max_length=100, max_tokens=30)) == 70
