"""What samples the completions of GRPO: vLLM in the trainer's own process, or transformers.

vLLM is made for sampling and wants a second copy of the weights in the GPU's memory. TRL hands it
the merged weights once a step and corrects the loss for what the two compute differently, so both
learn the same; docs/decisions/0008-two-ways-to-sample.md has the rest.
"""

import importlib.util
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from flashrun.api.records import ResolvedRun
from flashrun_trainer.trl_arguments import Machine

log = logging.getLogger(__name__)

_GIB: Final = 1 << 30
_LARGEST_SHARE: Final = 0.6
"""More than this of a GPU's memory makes sampling no faster."""
_SPARE: Final = 0.1
"""Of a GPU's memory, for what neither engine counts: contexts, kernels, fragments."""
_CACHE_BYTES: Final = 4 * _GIB
"""What vLLM needs beside its weights to be worth having."""


@dataclass(frozen=True)
class Engine:
    """What samples, and why."""

    why: str
    memory_share: float | None = None
    """The part of the GPU's memory that vLLM may take; None is transformers."""
    sleeps: bool = True
    """Whether vLLM leaves the memory to training between two steps."""

    @property
    def name(self) -> str:
        """Its name in the log."""
        return "transformers" if self.memory_share is None else "vLLM"


def choose(machine: Machine, installed: bool, sharded: bool, weights: int, memory: int) -> Engine:
    """Choose by what there is; ``weights`` and ``memory``, the GPU's, are in bytes."""
    if not machine.gpu:
        return Engine("there is no GPU")
    if not installed:
        return Engine("this image has no vLLM")
    if sharded:
        return Engine("no GPU holds the whole model")
    share = min(_LARGEST_SHARE, 1 - _SPARE - weights / memory)
    if share * memory < weights + _CACHE_BYTES:
        return Engine(
            f"a second copy of the weights, {weights / _GIB:.1f} GiB, would leave too little of "
            f"the GPU's {memory / _GIB:.0f} GiB"
        )
    share = math.floor(share * 100) / 100
    return Engine(f"it may take {share:.0%} of the GPU's memory", share)


def engine(run: ResolvedRun, machine: Machine, network: Any) -> Engine:
    """Look at what there is, choose, and say what and why."""
    import torch

    chosen = choose(
        machine,
        installed=importlib.util.find_spec("vllm") is not None,
        sharded=run.scale.sharded,
        weights=sum(weight.numel() * weight.element_size() for weight in network.parameters()),
        memory=torch.cuda.mem_get_info()[1] if machine.gpu else 0,
    )
    log.info("completions are sampled by %s: %s", chosen.name, chosen.why)
    return chosen


def settings(run: ResolvedRun, chosen: Engine) -> dict[str, Any]:
    """Return what the engine adds to the arguments of ``GRPOConfig``."""
    if chosen.memory_share is None:
        return {}
    stops = run.train.stop_sequences
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": chosen.memory_share,
        "vllm_max_model_length": run.train.max_length,
        "vllm_enable_sleep_mode": chosen.sleeps,
        # transformers would want a tokenizer with them: ``stops.heeded`` is its way.
        "generation_kwargs": {"stop": list(stops)} if stops else None,
    }


@contextmanager
def awake(generation: Any) -> Iterator[None]:
    """Keep vLLM from sleeping between the turns of an episode.

    It forgets its weights when it sleeps, and TRL lets it sleep after every call: each turn would
    cost another transfer of all weights.
    """
    if not generation.enable_sleep_mode:
        yield
        return
    if generation._llm_weights_sleeping:
        generation.sync_weights()
    generation.llm.wake_up(tags=["kv_cache"])
    generation.enable_sleep_mode = False
    try:
        yield
    finally:
        generation.enable_sleep_mode = True
        generation.llm.sleep(level=2)
        generation._llm_weights_sleeping = True


def spread(sampled: Sequence[float], mask: Sequence[int]) -> list[float]:
    """Return one log-probability a token: the sampled ones where the mask says so, 0 elsewhere."""
    rest = iter(sampled)
    return [next(rest) if learned else 0.0 for learned in mask]
