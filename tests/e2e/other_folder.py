"""A checkout in another folder, which knows a cluster only by what its user types."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localcluster import folders, toolchain
from tests.e2e.conftest import ROOT, SYSTEM, Product

INSTALL = """
import json, sys
from contextlib import closing
from localcluster import demo
from localcluster.steps import StepRunner

with closing(StepRunner.named("install")) as steps:
    demo.install(steps, json.loads(sys.argv[1]))
"""


class OtherFolder:
    """A checkout somewhere else, with a state of its own."""

    def __init__(self, product: Product, folder: Path) -> None:
        self.folder = folder / "checkout"
        self._product = product
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        registry = product.local.registry
        settings = folder / "registries.conf"
        settings.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
        self.environment = {
            **os.environ,
            "CLUSTER": "current",
            "KUBECONFIG": str(product.local.kubeconfig),
            "REGISTRY": registry,
            "TRAINER": "cpu",  # the node has no GPU, and that image takes minutes and gigabytes
            "S3_ENDPOINT": product.local.storage_endpoint,
            "S3_ACCESS_KEY": product.local.access_key,
            "S3_SECRET_KEY": product.local.secret_key,
            "XDG_STATE_HOME": str(folder / "state"),
            "CONTAINERS_REGISTRIES_CONF": str(settings),
            "PYTHONPATH": str(self.folder),
        }

    def install(self, values: Mapping[str, Any]) -> None:
        """Build the images, and install the product as ``make demo CLUSTER=current`` does."""
        self.run(sys.executable, "-c", INSTALL, json.dumps(values))

    def helm(self, *words: str) -> None:
        """Run helm for the release."""
        helm = str(toolchain.program("helm", self._product.steps))
        wait = () if words[0] == "test" else ("--wait",)  # helm test always does
        self.run(helm, *words, "--namespace", SYSTEM, *wait, "--timeout", "120s")

    def run(self, *words: str) -> str:
        """Run a program in the folder; return what it printed."""
        environment = {**self.environment, "HELM_CACHE_HOME": str(folders.cache() / "helm")}
        done = subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout
