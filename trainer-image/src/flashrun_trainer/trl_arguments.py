"""From the resolved spec to the arguments of TRL and PEFT: pure, and without either of them.

Batch sizes are those of one optimizer step. How much of it goes through the GPU at once is decided
here, and changes memory and speed, not what is learned.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flashrun.api.catalog import WARM_UP_SHARE
from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedRun
from flashrun_trainer.pod.trainer_errors import TrainerError

_TOKENS_AT_ONCE: Final = 16384
"""Tokens of one forward and backward pass on a GPU, padding included."""


@dataclass(frozen=True)
class Machine:
    """What the trainer runs on."""

    gpu: bool = False
    world_size: int = 1
    """Processes of the whole run, one a GPU."""


@dataclass(frozen=True)
class Split:
    """How one optimizer step is cut up."""

    at_once: int
    """Sequences of one pass."""
    passes: int
    """Passes before the optimizer steps (gradient accumulation)."""


def split(sequences: int, most: int) -> Split:
    """Cut one process's ``sequences`` into equal passes of at most ``most``."""
    at_once = max(n for n in range(1, min(sequences, max(most, 1)) + 1) if sequences % n == 0)
    return Split(at_once, sequences // at_once)


def sft(
    run: ResolvedRun, machine: Machine, output: Path, passes: int, steps: int
) -> dict[str, Any]:
    """Return the arguments of ``SFTConfig`` for data that is cut up already, a pass an item."""
    return {
        **_shared(run, machine, output, Split(at_once=1, passes=passes)),
        "max_steps": steps,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(WARM_UP_SHARE * steps),
        # Rows arrive as token ids and labels, in their order; nothing is left to prepare or to cut.
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "max_length": None,
        "packing": False,
    }


def prompts_per_step(run: ResolvedRun, prompts: int, world_size: int) -> int:
    """Return how many of ``prompts`` a step takes: at most batch_size, the same for every process.

    Raises:
        TrainerError: there is no such number.
    """
    group = run.train.group_size or 2
    most = min(run.train.batch_size, prompts)
    if found := next((n for n in range(most, 0, -1) if n * group % world_size == 0), 0):
        return found
    raise TrainerError(
        Exit.CONFIG,
        Reason.BATCH_INDIVISIBLE,
        f"{most} prompts with {group} completions each cannot be spread over {world_size} GPUs",
        f"make train.batch_size times train.group_size a multiple of {world_size}",
    )


def grpo(run: ResolvedRun, machine: Machine, output: Path, prompts: int) -> dict[str, Any]:
    """Return the arguments of ``GRPOConfig``; ``prompts`` is how many the dataset has.

    Raises:
        TrainerError: the temperature is zero, or the completions cannot be spread over the GPUs.
    """
    train = run.train
    if not train.temperature:
        raise TrainerError(
            Exit.CONFIG,
            Reason.TEMPERATURE_ZERO,
            "train.temperature is 0, so all completions of a group would be the same and nothing "
            "could be learned from them",
            "set train.temperature above 0",
        )
    group = train.group_size or 2
    completions = prompts_per_step(run, prompts, machine.world_size) * group
    cut = split(completions // machine.world_size, _at_once(run, machine))
    return {
        **_shared(run, machine, output, cut),
        "max_steps": train.steps,
        "lr_scheduler_type": "constant",
        "num_generations": group,
        # One generation an optimizer step: a checkpoint never falls into the middle of a buffer,
        # from where a resume could not go on exactly.
        "steps_per_generation": cut.passes,
        "num_iterations": 1,
        "max_completion_length": train.max_tokens,
        "temperature": train.temperature,
        "top_p": 1.0,
        "beta": train.kl_penalty_coef or 0.0,
        # Every token counts the same whatever its completion's length, and advantages keep the
        # scale of the reward: docs/training.md says why.
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        # What max_tokens cuts off has no end to learn; stop sequences end completions as we want.
        "mask_truncated_completions": not train.stop_sequences,
        # advantage_clip is recorded in the spec and changes nothing.
        "disable_dropout": True,
    }


def lora(run: ResolvedRun, targets: str) -> dict[str, Any]:
    """Return the arguments of ``LoraConfig`` for a fresh adapter."""
    return {
        "r": run.train.lora_rank,
        "lora_alpha": run.train.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
    }


def longest_prompt(run: ResolvedRun) -> int:
    """Return the most tokens that a GRPO prompt may have, so that a whole completion fits."""
    return run.train.max_length - (run.train.max_tokens or 0)


def most_tokens(machine: Machine) -> int | None:
    """Return how many tokens of one pass fit a device; a CPU's memory is no limit to speak of."""
    return _TOKENS_AT_ONCE if machine.gpu else None


def _at_once(run: ResolvedRun, machine: Machine) -> int:
    """Return how many sequences fit a device; a CPU's memory is no limit for what runs on one."""
    if not machine.gpu:
        return run.train.batch_size * (run.train.group_size or 1)
    return _TOKENS_AT_ONCE // run.train.max_length


def _shared(run: ResolvedRun, machine: Machine, output: Path, cut: Split) -> dict[str, Any]:
    return {
        "output_dir": str(output),
        "seed": run.seed,
        "data_seed": run.seed,
        "learning_rate": run.train.learning_rate,
        "per_device_train_batch_size": cut.at_once,
        "gradient_accumulation_steps": cut.passes,
        "save_strategy": "steps",
        "save_steps": run.train.save_every,
        # The newest is being uploaded from hard links; one more is kept against a half-written one.
        "save_total_limit": 2,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_first_step": True,
        # A loss that is no number must be seen, not averaged away.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": machine.gpu,
        "use_cpu": not machine.gpu,
        **_together(machine),
        "gradient_checkpointing": machine.gpu,
        # Routers are frozen, and a balance between experts would depend on how a step is cut up.
        "router_aux_loss_coef": 0.0,
        "optim": "adamw_torch_fused" if machine.gpu else "adamw_torch",
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": machine.gpu,
        "run_name": run.wandb.run_name,
    }


def _together(machine: Machine) -> dict[str, Any]:
    """Return what several processes need to be told."""
    if machine.world_size == 1:
        return {}
    return {
        "ddp_backend": "nccl" if machine.gpu else "gloo",
        # Every weight that learns is used in every pass; looking for others costs time.
        "ddp_find_unused_parameters": False,
    }
