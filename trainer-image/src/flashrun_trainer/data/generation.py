"""What samples the completions of GRPO: vLLM in the trainer's own process, or transformers.

vLLM is faster, and needs a second copy of the weights in the GPU's memory. TRL gives it the merged
weights once per step, and corrects the loss for the difference between the two sets of
log-probabilities, so both engines learn the same. docs/decisions/0008-two-ways-to-sample.md has the
reasons.
"""

import importlib.util
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from flashrun.api.records import ResolvedRun
from flashrun_trainer.data import sampler_agreement, stopping
from flashrun_trainer.trl_arguments import Machine

log = logging.getLogger(__name__)

_GIB: Final = 1 << 30
_LARGEST_SHARE: Final = 0.6
"""A larger share of the GPU's memory does not make sampling faster."""
_SPARE_SHARE: Final = 0.1
"""Share of the GPU's memory for what neither engine counts: contexts, kernels, fragmentation."""
_CACHE_BYTES: Final = 4 * _GIB
"""Memory that vLLM needs for its KV cache, beside its weights, to be faster."""


@dataclass(frozen=True)
class Engine:
    """What samples completions, and why it was chosen."""

    why: str
    memory_share: float | None = None
    """The share of the GPU's memory that vLLM may use; None means transformers."""
    sleeps: bool = True
    """Whether vLLM frees its memory for training between two steps."""

    @property
    def name(self) -> str:
        """The engine's name for the log."""
        return "transformers" if self.memory_share is None else "vLLM"


def choose_engine(
    machine: Machine, installed: bool, sharded: bool, weights: int, memory: int
) -> Engine:
    """Choose vLLM where it is possible; ``weights`` and ``memory``, the GPU's, are in bytes."""
    if not machine.gpu:
        return Engine("there is no GPU")
    if not installed:
        return Engine("this image has no vLLM")
    if sharded:
        return Engine("no GPU holds the whole model")
    share = min(_LARGEST_SHARE, 1 - _SPARE_SHARE - weights / memory)
    if share * memory < weights + _CACHE_BYTES:
        return Engine(
            f"a second copy of the weights, {weights / _GIB:.1f} GiB, would leave too little of "
            f"the GPU's {memory / _GIB:.0f} GiB"
        )
    share = math.floor(share * 100) / 100
    return Engine(f"it may use {share:.0%} of the GPU's memory", share)


def detect_engine(run: ResolvedRun, machine: Machine, network: Any) -> Engine:
    """Choose an engine for this machine and model, and log the choice."""
    import torch

    engine = choose_engine(
        machine,
        installed=importlib.util.find_spec("vllm") is not None,
        sharded=run.scale.sharded,
        weights=sum(weight.numel() * weight.element_size() for weight in network.parameters()),
        memory=torch.cuda.mem_get_info()[1] if machine.gpu else 0,
    )
    log.info("completions are sampled by %s: %s", engine.name, engine.why)
    return engine


def engine_arguments(run: ResolvedRun, engine: Engine, tokenizer: Any) -> dict[str, Any]:
    """Return the arguments of ``GRPOConfig`` that depend on the engine."""
    if engine.memory_share is None:
        return {}
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": engine.memory_share,
        "vllm_max_model_length": run.train.max_length,
        "vllm_enable_sleep_mode": engine.sleeps,
        # TRL's default multiplies a completion by the product of all its ratios, and long
        # completions would hardly be learned: docs/decisions/0008-two-ways-to-sample.md.
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_max": sampler_agreement.LARGEST_FACTOR,
        # For transformers, ``samplers.installed_for_transformers`` does this.
        "generation_kwargs": stopping.vllm_arguments(tokenizer, run.train.stop_sequences or ()),
    }


@contextmanager
def vllm_awake(generation: Any) -> Iterator[None]:
    """Keep vLLM awake between the turns of an episode.

    TRL puts vLLM to sleep after every call, and a sleeping vLLM frees its weights: each turn would
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


def align_logprobs(sampled: Sequence[float], mask: Sequence[int]) -> list[float]:
    """Return one log-probability per token: the sampled ones where ``mask`` is 1, else 0."""
    rest = iter(sampled)
    return [next(rest) if is_sampled else 0.0 for is_sampled in mask]
