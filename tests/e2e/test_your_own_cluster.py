"""The README's section on a cluster of one's own, typed line by line from another folder.

It is the last module, and begins where nothing of the product is installed. Of what is typed only
three things differ: names of servers, the trainer is the one for CPUs, and the model is the tiny
random one. It comes from the mirror, because no model hub can be reached.
"""

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import chart, toolchain
from tests.e2e.conftest import ROOT, SYSTEM, Product
from tests.e2e.other_folder import OtherFolder

pytestmark = pytest.mark.e2e

SECTION = (ROOT / "README.md").read_text().split("## On your own cluster\n")[1].split("\n## ")[0]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", SECTION, re.M | re.S)
RUN = re.compile(r"\bflash-\d+-[0-9a-f]{8}\b")
TEAM = "team-a"
SMALL: dict[str, Any] = {
    "pools": [{"name": "local", "vram": 80, "cpu": "100m", "memory": "2Gi"}],
    "trainer": {"sharedMemory": "256Mi",
                "environment": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}},
    "models": [chart.catalog_entry(chart.MODEL)],
    "mirrorReadable": True,
}  # fmt: skip
"""Values for a node of two cores and a model of the mirror."""


class Reader:
    """Somebody who has a cluster, a registry and a bucket, and the README."""

    def __init__(self, product: Product, folder: Path) -> None:
        self._product = product
        self._other = OtherFolder(product, folder)
        programs = folder / "bin"
        programs.mkdir()
        (programs / "helm").symlink_to(toolchain.program("helm", product.steps))
        (programs / "kubectl").symlink_to(toolchain.server("kubectl", product.steps))
        (self._other.folder / ".venv").symlink_to(ROOT / ".venv")
        kubeconfig = folder / "kubeconfig"
        shutil.copy(product.local.kubeconfig, kubeconfig)
        path = f"{programs}:{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
        self._other.environment |= {"KUBECONFIG": str(kubeconfig), "PATH": path}
        for name in ("S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "CLUSTER", "REGISTRY"):
            self._other.environment.pop(name, None)
        self.output: dict[str, str] = {}
        """What each line has printed."""
        self.run = ""

    def read(self) -> None:
        """Do what the section says, from its first line to its last."""
        for language, text in BLOCKS:
            if language == "yaml":
                self._write_values(text)
            else:
                for line in text.splitlines():
                    self.output[line] = self._type(line)

    def _write_values(self, text: str) -> None:
        values = yaml.safe_load(text)
        [images] = [printed for line, printed in self.output.items() if line.startswith("make")]
        for part in ("operator", "trainer"):
            [values[part]["image"]] = re.findall(rf"^{part}: (\S+@sha256:\w+)$", images, re.M)
        values["storage"]["endpoint"] = self._product.local.storage_endpoint
        values["trainer"] |= SMALL["trainer"]
        values |= {key: value for key, value in SMALL.items() if key != "trainer"}
        (self._other.folder / "platform.yaml").write_text(yaml.safe_dump(values))

    def _type(self, line: str) -> str:
        local = self._product.local
        words = shlex.split(line)
        if words[0] == "make":
            words = [word.replace("registry.example/team", local.registry) for word in words]
            # The environment is the one of these tests, and stays as it is.
            words.append("--assume-old=.venv/.ready")
        keys = iter((local.access_key, local.secret_key))
        words = [word.replace("…", next(keys)) if word.endswith("=…") else word for word in words]
        words = [self.run if word == "RUN" else word for word in words]
        words = [re.sub(r"^model=.*", f"model={chart.MODEL}", word) for word in words]
        printed = self._other.run(*words)
        if words[:2] == ["flash", "train"]:
            self.run = RUN.findall(printed)[-1]
        return printed


@pytest.fixture(scope="module")
def reader(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Somebody who has read the section to its end."""
    _uninstall(product)
    reader = Reader(product, tmp_path_factory.mktemp("reader"))
    reader.read()
    yield reader
    product.kubectl("delete", "flashruns", "--all", "-n", TEAM, "--timeout=120s")
    _uninstall(product)
    product.kubectl("delete", "namespace", TEAM, "--timeout=120s")


def _uninstall(product: Product) -> None:
    if SYSTEM not in product.kubectl("get", "namespaces", "-oname"):
        return
    product.kubectl(
        "delete", "flashruns", "--all", "--all-namespaces", "--timeout=180s", check=False
    )
    helm = str(toolchain.program("helm", product.steps))
    where = ["--namespace", SYSTEM, "--kubeconfig", product.local.kubeconfig]
    product.steps.run([helm, "uninstall", "flashrun", *where, "--ignore-not-found", "--wait"])
    product.kubectl("delete", "crd", "flashruns.flashrun.dev", "--ignore-not-found")
    product.kubectl("delete", "namespace", SYSTEM, "--timeout=120s")


def printed_by(reader: Reader, beginning: str) -> str:
    """Return what the one line that begins so has printed."""
    [text] = [text for line, text in reader.output.items() if line.startswith(beginning)]
    return text


def test_a_newcomer_gets_to_an_evaluated_adapter(product: Product, reader: Reader) -> None:
    found = json.loads(product.kubectl("get", "flashrun", reader.run, "-n", TEAM, "-ojson"))
    status = found["status"]

    assert status["phase"] == "Succeeded"
    assert all("score" in item for item in status["checkpoints"])
    assert "SCORE" in printed_by(reader, "flash checkpoints").upper()


def test_the_adapter_is_served_and_answers(reader: Reader) -> None:
    assert printed_by(reader, "flash chat").strip()


def test_nothing_is_wrong_with_what_was_installed(reader: Reader) -> None:
    words = [line.split()[0] for line in printed_by(reader, "flash doctor").splitlines()]
    assert "ok" in words
    assert "fail" not in words
