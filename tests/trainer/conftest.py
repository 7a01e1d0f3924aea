"""Storage and a tiny model for the trainer's tests.

Inside the trainer image the cluster's storage is used, which STORAGE_ACCESS describes; anywhere
else an S3 server is started.
"""

import importlib.util
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.records import StorageAccess
from flashrun.store import Store
from flashrun_trainer.data import generation
from tests.trainer import stand_in_engine
from tests.trainer.architectures import ARCHITECTURES, save_random_model
from tests.trainer.pods import INDEX_PASSWORD, ROOT, TrainerPod, Workshop, resolved


@pytest.fixture(scope="session")
def access(request: pytest.FixtureRequest) -> StorageAccess:
    """A bucket to work in."""
    if (given := os.environ.get("STORAGE_ACCESS")) is not None:
        return StorageAccess.model_validate_json(given)
    minio = request.getfixturevalue("minio")
    store: Store = minio.store("trainer")
    return store.access


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, made as its readme says."""
    folder = tmp_path_factory.mktemp("tiny")
    arguments, sys.argv = sys.argv, ["make_tiny_model.py", str(folder)]
    try:
        script = ROOT / "examples" / "tiny-model" / "make_tiny_model.py"
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = arguments
    return folder


@pytest.fixture(scope="session")
def workshop(
    access: StorageAccess, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Workshop:
    """Storage with the tiny model."""
    place = Workshop(tmp_path_factory.mktemp("pods"), access)
    place.mirror(tiny_model)
    return place


@pytest.fixture
def empty_workshop(access: StorageAccess, tmp_path: Path) -> Workshop:
    """Storage without a model cache of other tests."""
    return Workshop(tmp_path, access)


@pytest.fixture
def new_pod(empty_workshop: Workshop) -> Callable[..., TrainerPod]:
    """Makes a pod whose containers have not run yet."""

    def make(index: int = 0) -> TrainerPod:
        run = resolved(pip_index_url=f"https://me:{INDEX_PASSWORD}@index.invalid/simple")
        pod = TrainerPod(empty_workshop, run, 1, index)
        pod.write_files()
        (pod.folder / "packages").mkdir()
        return pod

    return make


@pytest.fixture(scope="session")
def sft_run(workshop: Workshop) -> TrainerPod:
    """A pod that has trained with SFT."""
    pod = workshop.pod(resolved("sft", batch_size=8, epochs=2, max_examples=40, save_every=4))
    assert pod.train() == 0
    return pod


@pytest.fixture(scope="session")
def grpo_run(workshop: Workshop) -> TrainerPod:
    """A pod that has trained with GRPO."""
    run = resolved("grpo", steps=3, max_tokens=8, kl_penalty_coef=0.1, save_every=2)
    pod = workshop.pod(run)
    assert pod.train() == 0
    return pod


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(
    request: pytest.FixtureRequest, workshop: Workshop, tiny_model: Path
) -> tuple[str, Path]:
    """Each architecture in turn, and the folder of a random model of it."""
    return request.param, save_random_model(request.param, workshop, tiny_model)


INSTALLED_ENGINES = (
    ("transformers", "vllm") if importlib.util.find_spec("vllm") else ("transformers",)
)
ENGINES = (*INSTALLED_ENGINES, "stand-in")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each engine in turn; vLLM only where it is installed, and a stand-in for it."""
    if request.param == "vllm":
        request.getfixturevalue("vllm")
    elif request.param == "stand-in":
        stand_in_engine.install(monkeypatch)
    else:
        chosen = generation.Engine("a test says so")
        monkeypatch.setattr(generation, "choose_engine", lambda *_, **__: chosen)
    return str(request.param)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sample with vLLM, on a CPU as well, where no run would choose it."""
    import torch
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.model_executor.layers import utils
    from vllm.platforms import current_platform

    if current_platform.is_unspecified():
        pytest.skip("this build of vLLM is for GPUs, and there is none")
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        chosen = generation.Engine("a test says so", memory_share=0.05, sleeps=False)
        monkeypatch.setattr(generation, "choose_engine", lambda *_, **__: chosen)
        monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", unpacked)
    before = dict(os.environ)
    yield
    cleanup_dist_env_and_memory()
    # TRL tells vLLM by variables that it is alone; the next test must not see them.
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


def unpacked(layer: Any, remove_weight: bool) -> None:
    """Leave a layer's weights unpacked: vLLM for CPUs packs them once, then accepts no others."""
    import torch

    layer.cpu_linear = torch.nn.functional.linear
