"""From the resolved spec to the arguments of TRL and PEFT: pure functions, without either of them.

The batch sizes of a config are those of one optimizer step. How a step is divided into
micro-batches is decided here and in ``data.packing``; it changes memory and speed, not what is
learned.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flashrun.api.catalog import WARM_UP_SHARE
from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import Batching, ResolvedRun
from flashrun_trainer.pod.trainer_errors import TrainerError

_MICRO_BATCH_TOKENS: Final = 16384
"""Most tokens of one micro-batch on a GPU, padding included."""


@dataclass(frozen=True)
class Machine:
    """What the trainer runs on."""

    gpu: bool = False
    world_size: int = 1
    """Processes of the whole run, one per GPU."""


def divide_step(sequences: int, most: int) -> tuple[int, int]:
    """Divide the ``sequences`` of one process into equal micro-batches of at most ``most``.

    Returns (micro_batch_size, gradient_accumulation_steps); their product is ``sequences``.
    """
    sizes = range(1, min(sequences, max(most, 1)) + 1)
    micro_batch_size = max(size for size in sizes if sequences % size == 0)
    return micro_batch_size, sequences // micro_batch_size


def sft(
    run: ResolvedRun, machine: Machine, output: Path, gradient_accumulation_steps: int, steps: int
) -> dict[str, Any]:
    """Return the arguments of ``SFTConfig`` for data whose items are complete micro-batches."""
    return {
        **_shared_arguments(run, machine, output, 1, gradient_accumulation_steps),
        "max_steps": steps,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(WARM_UP_SHARE * steps),
        # The collator makes token ids and labels, in order; TRL must neither prepare nor cut them.
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "max_length": None,
        "packing": False,
    }


def prompts_per_step(run: ResolvedRun, prompts: int, world_size: int) -> int:
    """Return how many of ``prompts`` a GRPO step takes: at most batch_size.

    Every process must get the same number of completions, so their number over all groups is a
    multiple of ``world_size``.

    Raises:
        TrainerError: there is no such number.
    """
    group = run.train.group_size or 2
    most = min(run.train.batch_size, prompts)
    if number := next((n for n in range(most, 0, -1) if n * group % world_size == 0), 0):
        return number
    raise TrainerError(
        Exit.CONFIG,
        Reason.BATCH_INDIVISIBLE,
        f"{most} prompts with {group} completions each cannot be divided among {world_size} GPUs",
        f"make train.batch_size times train.group_size a multiple of {world_size}",
    )


def grpo_batching(run: ResolvedRun, machine: Machine, prompts: int) -> Batching:
    """Return how a GRPO step is divided; ``prompts`` is the number of prompts in the dataset.

    Raises:
        TrainerError: the completions cannot be divided among the GPUs.
    """
    group = run.train.group_size or 2
    completions = prompts_per_step(run, prompts, machine.world_size) * group
    own = completions // machine.world_size
    micro_batch_size, gradient_accumulation_steps = divide_step(own, _most_sequences(run, machine))
    return Batching(
        world_size=machine.world_size,
        micro_batch_size=micro_batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        generation_batch_size=completions,
    )


def grpo(run: ResolvedRun, machine: Machine, output: Path, prompts: int) -> dict[str, Any]:
    """Return the arguments of ``GRPOConfig``; ``prompts`` is the number of prompts in the dataset.

    Raises:
        TrainerError: the temperature is zero, or the completions cannot be divided among the GPUs.
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
    batching = grpo_batching(run, machine, prompts)
    accumulation = batching.gradient_accumulation_steps
    return {
        **_shared_arguments(run, machine, output, batching.micro_batch_size, accumulation),
        "max_steps": train.steps,
        "lr_scheduler_type": "constant",
        "num_generations": train.group_size or 2,
        # One generation per optimizer step: a checkpoint then never falls into the middle of a
        # buffer of completions, from where a resume could not continue exactly.
        "steps_per_generation": accumulation,
        "num_iterations": 1,
        "max_completion_length": train.max_tokens,
        "temperature": train.temperature,
        "top_p": 1.0,
        "beta": train.kl_penalty_coef or 0.0,
        # Every token counts the same whatever its completion's length, and advantages keep the
        # scale of the reward: docs/training.md has the reasons.
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        # grpo.py masks completions; TRL's own mask does not know episodes and stop sequences.
        "mask_truncated_completions": False,
        # advantage_clip is recorded in the spec and has no effect.
        "disable_dropout": True,
    }


def lora(run: ResolvedRun, names: list[str] | str, exclude: str | None) -> dict[str, Any]:
    """Return the arguments of ``LoraConfig`` for a fresh adapter."""
    return {
        "r": run.train.lora_rank,
        "lora_alpha": run.train.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": names,
        "exclude_modules": exclude,
        "task_type": "CAUSAL_LM",
    }


def longest_prompt(run: ResolvedRun) -> int:
    """Return the most tokens of a GRPO prompt, so that a completion of max_tokens still fits."""
    return run.train.max_length - (run.train.max_tokens or 0)


def most_micro_batch_tokens(machine: Machine) -> int | None:
    """Return the most tokens of an SFT micro-batch; None means no limit, as on a CPU."""
    return _MICRO_BATCH_TOKENS if machine.gpu else None


def _most_sequences(run: ResolvedRun, machine: Machine) -> int:
    """Return the most completions of a GRPO micro-batch; on a CPU, all of a step."""
    if not machine.gpu:
        return run.train.batch_size * (run.train.group_size or 1)
    return _MICRO_BATCH_TOKENS // run.train.max_length


def _shared_arguments(
    run: ResolvedRun,
    machine: Machine,
    output: Path,
    micro_batch_size: int,
    gradient_accumulation_steps: int,
) -> dict[str, Any]:
    return {
        "output_dir": str(output),
        "seed": run.seed,
        "data_seed": run.seed,
        "learning_rate": run.train.learning_rate,
        "per_device_train_batch_size": micro_batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "save_strategy": "steps",
        "save_steps": run.train.save_every,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_first_step": True,
        # A loss that is not finite must be reported, not replaced by an average.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": machine.gpu,
        "use_cpu": not machine.gpu,
        **_data_parallel(machine),
        "gradient_checkpointing": machine.gpu,
        # Routers are frozen, and the loss that balances experts would depend on the micro-batches.
        "router_aux_loss_coef": 0.0,
        "optim": "adamw_torch_fused" if machine.gpu else "adamw_torch",
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": machine.gpu,
        "run_name": run.wandb.run_name,
    }


def _data_parallel(machine: Machine) -> dict[str, Any]:
    """Return the arguments for several processes (DistributedDataParallel)."""
    if machine.world_size == 1:
        return {}
    return {
        "ddp_backend": "nccl" if machine.gpu else "gloo",
        # Every trainable weight is used in every micro-batch; searching for unused ones costs time.
        "ddp_find_unused_parameters": False,
    }
