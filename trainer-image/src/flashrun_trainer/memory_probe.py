"""A GPU that has run out of memory: what of the micro-batch would fit, measured in this process.

The attempt is over, and its last whole step is saved. Smaller and smaller parts of the micro-batch
that did not fit are computed, forward and backward, until one does. The user reads the values of
the config with which no micro-batch is larger than that.
"""

import gc
import logging
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import torch

from flashrun.api.config import Algorithm
from flashrun.api.exits import Exit
from flashrun.api.records import ResolvedRun
from flashrun_trainer import trl_arguments
from flashrun_trainer.context import TrainContext
from flashrun_trainer.pod.trainer_errors import TrainerError, classify
from flashrun_trainer.trl_arguments import Machine

log = logging.getLogger(__name__)

_SHORTEST: Final = 32
"""Fewest tokens of a sequence that are tried."""
_BOUNDARIES: Final = ("cu_seq_lens_q", "cu_seq_lens_k")


@dataclass(frozen=True)
class Part:
    """The beginning of a micro-batch."""

    sequences: int
    tokens: int
    """Of its longest sequence, padding included."""

    def __str__(self) -> str:
        """Return the size in words."""
        noun = "sequence" if self.sequences == 1 else "sequences"
        return f"{self.sequences} {noun} of {self.tokens} tokens"


def explain_memory_error(error: BaseException, trainer: Any, context: TrainContext) -> NoReturn:
    """Raise ``error`` again, with what would fit if a GPU ran out of memory in a gradient.

    With several processes nothing is measured: a part of a step needs all of them.
    """
    failure, inputs = classify(error), trainer.micro_batch
    if failure.code != Exit.CUDA_OUT_OF_MEMORY or inputs is None:
        raise error
    whole = size_of(inputs)
    message = f"{failure.message} in the gradient of {whole}"
    if context.process_group.world_size > 1:
        raise TrainerError(failure.code, failure.reason, message, failure.hint) from error
    _release(error, trainer)
    fitting = _measure(trainer, inputs, whole)
    log.info("of %s, this fits: %s", whole, fitting or "nothing")
    raise TrainerError(
        failure.code,
        failure.reason,
        f"{message}; measured: {fitting} fit" if fitting else message,
        advice(context.run, context.machine, whole, fitting),
    ) from error


def advice(run: ResolvedRun, machine: Machine, whole: Part, fitting: Part | None) -> str:
    """Return the values of the config with which every micro-batch fits."""
    if fitting is None:
        return f"not even {_SHORTEST} tokens fit: choose a smaller model or a lower train.lora_rank"
    if fitting.tokens < whole.tokens:
        return (
            f"set train.batch_size to 1 and train.max_length to {fitting.tokens}"
            if run.algorithm is Algorithm.SFT
            else f"set train.max_length to {fitting.tokens}, and lower train.max_tokens below it"
        )
    if run.algorithm is Algorithm.SFT:
        return f"set train.batch_size to {fitting.sequences}"
    return _grpo_advice(run, machine, fitting)


def _grpo_advice(run: ResolvedRun, machine: Machine, fitting: Part) -> str:
    """Return the largest number of prompts, or else of completions, that fits."""
    train = run.train
    groups = range(train.group_size or 2, 1, -1)
    for group in groups:
        for prompts in range(train.batch_size, 0, -1):
            tried = run.replace(train=train.replace(batch_size=prompts, group_size=group))
            batching = trl_arguments.grpo_batching(tried, machine, prompts)
            if batching.micro_batch_size > fitting.sequences:
                continue
            same = group == train.group_size
            also = "" if same else f" and train.group_size to {group}"
            return f"set train.batch_size to {prompts}{also}"
    return "lower train.max_length and train.max_tokens: a single completion fits, a group does not"


def size_of(inputs: dict[str, Any]) -> Part:
    """Return the size of a micro-batch."""
    if _BOUNDARIES[0] in inputs:
        return Part(len(inputs[_BOUNDARIES[0]]) - 1, int(inputs["max_length_q"]))
    keys = ("input_ids",) if "input_ids" in inputs else ("prompt_ids", "completion_ids")
    rows = len(inputs[keys[0]])
    return Part(rows, sum(inputs[key].shape[1] for key in keys))


def take_part(inputs: dict[str, Any], part: Part) -> dict[str, Any]:
    """Return the beginning of a micro-batch; sequences lose their ends."""
    whole = size_of(inputs)
    if _BOUNDARIES[0] in inputs:
        return _part_of_one_row(inputs, part)
    cut = whole.tokens - part.tokens
    key = "input_ids" if "input_ids" in inputs else "completion_ids"
    width = inputs[key].shape[1]
    return {
        name: _cut(value, whole.sequences, part.sequences, width, width - cut)
        for name, value in inputs.items()
    }


def _part_of_one_row(inputs: dict[str, Any], part: Part) -> dict[str, Any]:
    """Return the first sequences of a row in which all follow one another."""
    ends = inputs[_BOUNDARIES[0]][: part.sequences + 1]
    longest, total = int((ends[1:] - ends[:-1]).max()), int(ends[-1])
    changed = {**dict.fromkeys(_BOUNDARIES, ends), "max_length_q": longest, "max_length_k": longest}
    return {
        name: changed[name] if name in changed else value[:, :total]
        for name, value in inputs.items()
    }


def _cut(value: Any, rows: int, fewer: int, width: int, narrower: int) -> Any:
    if not isinstance(value, torch.Tensor) or value.ndim == 0 or len(value) != rows:
        return value
    value = value[:fewer]
    return value[:, :narrower] if value.ndim > 1 and value.shape[1] == width else value


def _measure(trainer: Any, inputs: dict[str, Any], whole: Part) -> Part | None:
    """Return the largest part that was tried and fits; None when none does."""
    for part in _smaller_parts(inputs, whole):
        try:
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(trainer.model_wrapped, take_part(inputs, part))
            trainer.accelerator.backward(loss)
        except Exception as error:
            if classify(error).code != Exit.CUDA_OUT_OF_MEMORY:
                log.warning("what fits cannot be measured: %s", error)
                return None
            _release(error, trainer)
        else:
            return part
    return None


def _smaller_parts(inputs: dict[str, Any], whole: Part) -> Iterator[Part]:
    """Yield parts of half the size each: first fewer sequences, then shorter ones."""
    sequences, tokens = whole.sequences, whole.tokens
    while sequences > 1:
        sequences //= 2
        yield Part(sequences, tokens)
    if _BOUNDARIES[0] in inputs:
        return
    fixed = inputs["prompt_ids"].shape[1] if "prompt_ids" in inputs else 0
    while tokens // 2 >= max(_SHORTEST, fixed + 1):
        tokens //= 2
        yield Part(1, tokens)


def _release(error: BaseException, trainer: Any) -> None:
    """Free what the failed computation holds: its frames have the activations."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
    trainer.model_wrapped.zero_grad(set_to_none=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
