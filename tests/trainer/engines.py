"""What samples the completions of a test: transformers, vLLM where it is installed, a stand-in."""

import importlib.util
from typing import Any

import pytest

from flashrun_trainer.data import generation
from tests.trainer import stand_in_engine

INSTALLED_ENGINES = (
    ("transformers", "vllm") if importlib.util.find_spec("vllm") else ("transformers",)
)
ENGINES = (*INSTALLED_ENGINES, "stand-in")


def install(engine: str, patch: pytest.MonkeyPatch | None = None) -> None:
    """Sample with this engine: for a test, or until the process ends."""
    patch = patch or pytest.MonkeyPatch()
    if engine == "vllm":
        _install_vllm(patch)
    elif engine == "stand-in":
        stand_in_engine.install(patch)
    else:
        chosen = generation.Engine("a test says so")
        patch.setattr(generation, "choose_engine", lambda *_, **__: chosen)


def _install_vllm(patch: pytest.MonkeyPatch) -> None:
    """Sample with vLLM, on a CPU as well, where no run would choose it."""
    import torch
    from vllm.model_executor.layers import utils
    from vllm.platforms import current_platform

    if current_platform.is_unspecified():
        pytest.skip("this build of vLLM is for GPUs, and there is none")
    if not torch.cuda.is_available():
        chosen = generation.Engine("a test says so", memory_share=0.05, sleeps=False)
        patch.setattr(generation, "choose_engine", lambda *_, **__: chosen)
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setattr(utils, "dispatch_cpu_unquantized_gemm", _unpacked)


def _unpacked(layer: Any, remove_weight: bool) -> None:
    """Leave a layer's weights unpacked: vLLM for CPUs packs them once, then accepts no others."""
    import torch

    layer.cpu_linear = torch.nn.functional.linear
