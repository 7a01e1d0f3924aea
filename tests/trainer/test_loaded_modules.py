"""What each container loads: importing is most of the time that it takes to start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flashrun_trainer.__main__ import COMMANDS
from tests.trainer.pods import ROOT, TrainerPod, Workshop, resolved, sums

TRAINING = {"torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "pandas"}
OTHERS = {
    "wandb",
    "mlflow",
    "trackio",
    "comet_ml",
    "vllm",
    "deepspeed",
    "torchvision",
    "torchaudio",
}
"""Libraries that others import if they are installed."""
INIT = {"flashrun_trainer.init"}
SERVING = {"flashrun_trainer.serving"}
ATTEMPT = {
    "flashrun_trainer.run_attempt",
    "flashrun_trainer.launch",
    "flashrun_trainer.data.environment",
    "freesolo",
    "packaging",
    "unittest",
    "asyncio",
}
"""What an attempt loads before PyTorch, and what its libraries need."""
OF_STORAGE = {"cffi", "pycparser"}
"""What the client for storage imports if it is there, for calls that nobody makes."""
SMALL = TRAINING | OTHERS | ATTEMPT | SERVING

UNUSED = {
    "model": SMALL | {"flashrun_trainer.data", "flashrun_trainer.init.packages"},
    "packages": SMALL | {"flashrun_trainer.init.model_download"},
    "train": TRAINING | OTHERS | INIT | SERVING,
    "rank": TRAINING | OTHERS | INIT | SERVING | {"flashrun_trainer.launch"},
    "serve": TRAINING | OTHERS | ATTEMPT | {"flashrun_trainer.init.packages"},
}
"""What each container must not have loaded when its work begins, and an init container ever."""

LOADS = """
import os, sys
from flashrun_trainer.__main__ import COMMANDS, main
container, begins_only, file = sys.argv[1:]
code = 0
if begins_only:
    COMMANDS[container]()
else:
    code = main([container])
open(file, "w").write("\\n".join(sys.modules))
sys.stdout.flush()
os._exit(code)
"""
"""Runs a container, or imports its work, and writes what is loaded then."""


def loaded_modules(folder: Path, container: str, pod: TrainerPod | None = None) -> set[str]:
    """Return what is loaded when a pod's container has ended; without a pod, when it begins."""
    sources = [str(ROOT / "operator/src"), str(ROOT / "trainer-image/src")]
    path = os.pathsep.join([*sources, *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = pod.environment if pod is not None else {}
    begins_only = "" if pod is not None else "yes"
    done = subprocess.run(
        [sys.executable, "-c", LOADS, container, begins_only, str(folder / "modules")],
        env={**os.environ, **variables, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set((folder / "modules").read_text().splitlines())


def test_the_table_has_every_container():
    assert UNUSED.keys() == COMMANDS.keys()


@pytest.mark.parametrize("container", UNUSED)
def test_a_container_begins_with_what_its_own_work_needs(tmp_path: Path, container: str):
    loaded = loaded_modules(tmp_path, container)

    assert "flashrun.store" in loaded
    assert loaded & UNUSED[container] == set()


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("container", ["model", "packages"])
def test_an_init_container_works_with_what_it_has_loaded(
    workshop: Workshop, tmp_path: Path, container: str
):
    empty = Workshop(tmp_path, workshop.access)
    pod = empty.new_pod(empty.publish(sums()))
    for folder in (pod.inside.packages, pod.inside.work):
        folder.mkdir()

    loaded = loaded_modules(tmp_path, container, pod)

    made = {"model": pod.inside.model_folder(pod.run), "packages": pod.inside.environment}
    assert any(made[container].iterdir())
    assert loaded & (UNUSED[container] | OF_STORAGE) == set()


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("algorithm", "other"), [("sft", "grpo"), ("grpo", "sft")])
def test_a_run_imports_nothing_that_it_does_not_use(
    workshop: Workshop, tmp_path: Path, algorithm: str, other: str
):
    knobs = {"max_steps": 1} if algorithm == "sft" else {"steps": 1, "max_tokens": 8}
    pod = workshop.pod(resolved(algorithm, **knobs))

    loaded = loaded_modules(tmp_path, "train", pod)

    assert "trl" in loaded
    assert loaded & (OTHERS | INIT | SERVING) == set()
    assert not {name for name in loaded if other in name.split(".")[-1].split("_")}
