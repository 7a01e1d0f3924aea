"""The trainer image as a cluster with GPUs gets it: built whole, and imported without a GPU.

``make test-gpu-image`` runs it: the build downloads gigabytes. Nothing is computed on a GPU.
"""

import json
from contextlib import closing
from pathlib import Path

import pytest

from localcluster import folders, images
from localcluster.steps import StepRunner
from supply_chain.licences import Accepted

DOCKERFILE = folders.repository() / images.DOCKERFILES["trainer"]
pytestmark = pytest.mark.slow

FOUND = """
import json, shutil
import torch, triton
from flashrun_trainer import grpo, sft
found = {
    "cuda": torch.version.cuda, "nccl": torch.distributed.is_nccl_available(),
    "compiler": shutil.which("gcc"), "packages": json.load(open("{SBOM}"))["components"],
}
with open("/mnt/found.json", "w") as file:
    json.dump(found, file)
""".replace("{SBOM}", images.SBOM)


def test_the_image_for_gpus_has_cuda_nccl_a_compiler_and_both_trainers(tmp_path: Path) -> None:
    with (
        closing(StepRunner.silent(tmp_path)) as steps,
        images.gpu_trainer(tmp_path, steps) as run,
    ):
        run("python", "-c", FOUND)
    found = json.loads((tmp_path / "found.json").read_text())

    assert found["cuda"]
    assert found["nccl"]
    assert found["compiler"]
    named = {package["name"]: package["version"] for package in found["packages"]}
    assert f"torch=={named['torch']}" in DOCKERFILE.read_text()
    assert "nvidia-nccl-cu13" in named or "nvidia-nccl-cu12" in named
    accepted = Accepted.load()
    assert [
        sentence for package in found["packages"] if (sentence := accepted.problem(package))
    ] == []
