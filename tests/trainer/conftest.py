"""Storage and a tiny model for the trainer's tests.

Inside the trainer image the cluster's storage is used, which STORAGE_ACCESS describes; anywhere
else an S3 server is started.
"""

import functools
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flashrun.api.records import StorageAccess
from flashrun.store import Store
from flashrun_trainer.data import shadowing
from tests.trainer import engines
from tests.trainer.architectures import ARCHITECTURES, save_random_model
from tests.trainer.engines import ENGINES
from tests.trainer.pods import INDEX_PASSWORD, ROOT, TrainerPod, Workshop, resolved


@pytest.fixture(scope="session", autouse=True)
def _packages_listed_once() -> Iterator[None]:
    """List what is installed once for all pods that train in this process."""
    listed = functools.cache(shadowing.packages_distributions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shadowing, "packages_distributions", listed)
        yield


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
def verifiers_site() -> Path:
    """The virtual environment with verifiers that make test-verifiers has made."""
    return Path(os.environ["VERIFIERS_SITE"])


@pytest.fixture(scope="session")
def verifiers_python(verifiers_site: Path) -> Path:
    """The interpreter that imports verifiers."""
    return verifiers_site / "bin" / "python"


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


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each engine in turn; vLLM only where it is installed, and a stand-in for it."""
    engines.install(request.param, monkeypatch)
    before = dict(os.environ)
    yield request.param
    if request.param == "vllm":
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
        # TRL tells vLLM by variables that it is alone; the next test must not see them.
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
