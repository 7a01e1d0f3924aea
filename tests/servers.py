"""Real servers for tests: an S3 server and a control plane, one of each for a test session.

They listen on loopback, keep everything in a temporary folder, and end with the test process.
"""

import functools
import shutil
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from flashrun.api.records import StorageAccess
from flashrun.store import Store
from localcluster import toolchain
from localcluster.controlplane import ControlPlane
from localcluster.pki import Leaf
from localcluster.ports import Ports
from localcluster.process import Daemons
from localcluster.steps import StepRunner

CRD = Path(__file__).parents[1] / "crds" / "flashruns.yaml"
MINIO_DOMAIN = "s3.flashrun.test"
"""Below this host name buckets are host names themselves; no name server knows it."""
ROOT_USER, ROOT_PASSWORD = "root-of-tests", "root-password-of-tests"

_UNCHECKED = ssl._create_unverified_context()
"""Asks whether a server is up, whoever has signed its certificate."""


@dataclass(frozen=True)
class Minio:
    """An S3 server in a folder of its own."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further settings of the server."""
    certificate: Leaf | None = None
    """With it the server speaks TLS."""

    @property
    def daemons(self) -> Daemons:
        return Daemons(self.folder / "servers", ephemeral=True)

    @property
    def endpoint(self) -> str:
        running = self.daemons.running("minio")
        port = Ports(self.folder / "ports.json").get("minio", running=running)
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{port}"

    def start(self) -> None:
        with closing(StepRunner.silent(self.folder)) as steps:
            program = toolchain.program("minio", steps)
        address = self.endpoint.partition("://")[2]
        options: list[str | Path] = ["--quiet", "--address", address]
        if self.certificate:
            options += ["--certs-dir", self._write_certificates(self.certificate)]
        self.daemons.start(
            "minio",
            [program, "server", *options, self.folder / "data"],
            {
                "MINIO_ROOT_USER": ROOT_USER,
                "MINIO_ROOT_PASSWORD": ROOT_PASSWORD,
                "MINIO_BROWSER": "off",
                "MINIO_DOMAIN": MINIO_DOMAIN,
                "MINIO_UPDATE": "off",
                **self.variables,
            },
        )
        self.daemons.wait("minio", self._ready)

    def stop(self) -> None:
        self.daemons.stop("minio")

    def access(self, bucket: str) -> StorageAccess:
        return StorageAccess(
            endpoint=self.endpoint,
            bucket=bucket,
            access_key=ROOT_USER,
            secret_key=ROOT_PASSWORD,
        )

    def store(self, bucket: str) -> Store:
        """The administrator's store on a bucket that exists."""
        store = Store(self.access(bucket))
        store.ensure_bucket()
        return store

    def _write_certificates(self, certificate: Leaf) -> Path:
        folder = self.folder / "certificates"
        folder.mkdir(exist_ok=True)
        shutil.copy(certificate.certificate, folder / "public.crt")
        shutil.copy(certificate.key, folder / "private.key")
        return folder

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"{self.endpoint}/minio/health/ready", timeout=2, context=_UNCHECKED
            ):
                return True
        except OSError:
            return False


def start_control_plane(folder: Path, token_webhook: Path | None = None) -> ControlPlane:
    """Start an API server with its controllers and without a scheduler."""
    control_plane = ControlPlane(
        folder, scheduler=False, token_webhook=token_webhook, ephemeral=True
    )
    with closing(StepRunner.silent(folder)) as steps:
        control_plane.start(steps)
    return control_plane


@functools.cache
def _kubectl_program() -> Path:
    """Find the program once: each time Go is asked for its version."""
    with TemporaryDirectory() as folder, closing(StepRunner.silent(Path(folder))) as steps:
        return toolchain.server("kubectl", steps)


def kubectl(kubeconfig: Path, *words: str, stdin: str | None = None) -> str:
    """Run kubectl; raises ``CalledProcessError`` with its words when it fails."""
    return subprocess.run(
        [_kubectl_program(), "--kubeconfig", kubeconfig, *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def install_crd(kubeconfig: Path, definition: dict[str, Any] | None = None) -> None:
    """Make the cluster know FlashRuns, and return once it serves them.

    Of its fields some belong to Helm once a release was installed: a change of them is forced.

    Args:
        definition: Another than that of this version.
    """
    text = yaml.safe_dump(definition) if definition else CRD.read_text()
    kubectl(kubeconfig, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    wait_until_served(kubeconfig, "flashruns")


def wait_until_served(kubeconfig: Path, kinds: str) -> None:
    """Wait until the API server answers for kinds whose definitions it has accepted.

    That takes a while: until then each request for the new kind is a 404. ``kubectl wait`` would
    fail at once while the definition has no status.
    """
    for remaining in reversed(range(300)):
        try:
            kubectl(kubeconfig, "get", kinds, "--all-namespaces")
        except subprocess.CalledProcessError:
            if remaining == 0:
                raise
            time.sleep(0.2)
        else:
            return
