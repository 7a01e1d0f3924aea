"""Real servers for tests: an S3 server and a control plane, one of each for a test session.

They listen on loopback, keep everything in a temporary folder, and end with the test process.
"""

import subprocess
import time
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from flashrun.api.records import StorageAccess
from flashrun.store import Store
from localcluster import toolchain
from localcluster.controlplane import ControlPlane
from localcluster.ports import Ports
from localcluster.process import Daemons
from localcluster.steps import StepRunner

CRD = Path(__file__).parents[1] / "crds" / "flashruns.yaml"
MINIO_DOMAIN = "s3.flashrun.test"
"""Below this host name buckets are host names themselves; no name server knows it."""
ROOT_USER, ROOT_PASSWORD = "root-of-tests", "root-password-of-tests"


@dataclass(frozen=True)
class Minio:
    """An S3 server in a folder of its own."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further settings of the server."""

    @property
    def daemons(self) -> Daemons:
        return Daemons(self.folder / "servers", ephemeral=True)

    @property
    def endpoint(self) -> str:
        running = self.daemons.running("minio")
        return f"http://127.0.0.1:{Ports(self.folder / 'ports.json').get('minio', running=running)}"

    def start(self) -> None:
        with closing(StepRunner.silent(self.folder)) as steps:
            program = toolchain.program("minio", steps)
        address = self.endpoint.removeprefix("http://")
        self.daemons.start(
            "minio",
            [program, "server", "--quiet", "--address", address, self.folder / "data"],
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

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/minio/health/ready", timeout=2):
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


def kubectl(kubeconfig: Path, *words: str, stdin: str | None = None) -> str:
    """Run kubectl; raises ``CalledProcessError`` with its words when it fails."""
    with closing(StepRunner.silent(kubeconfig.parent)) as steps:
        program = toolchain.server("kubectl", steps)
    return subprocess.run(
        [program, "--kubeconfig", kubeconfig, *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def install_crd(kubeconfig: Path) -> None:
    """Make the cluster know FlashRuns, and return once it serves them."""
    kubectl(kubeconfig, "apply", "--server-side", "-f", str(CRD))
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
