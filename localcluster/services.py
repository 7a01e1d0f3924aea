"""S3 storage (MinIO) and an image registry, beside a cluster that has neither."""

import secrets
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

from localcluster import folders, toolchain
from localcluster.ports import Ports
from localcluster.process import Daemons, write_if_changed
from localcluster.steps import StepRunner

ACCESS_KEY = "flashrun-local"


@dataclass(frozen=True)
class Services:
    """The S3 server and the image registry of one folder."""

    folder: Path
    address: str = "127.0.0.1"
    """Where storage listens; pods must be able to reach it."""
    ephemeral: bool = False
    exposed: bool = False
    """Whether the registry listens on every address, for nodes that are Docker containers."""

    @property
    def daemons(self) -> Daemons:
        """Both servers."""
        return Daemons(self.folder / "servers", self.ephemeral)

    @property
    def endpoint(self) -> str:
        """The URL of the S3 server."""
        return f"http://{self.address}:{self._port('minio', self.address)}"

    @property
    def registry(self) -> str:
        """The registry as `address:port`; container runtimes use HTTP for a loopback address."""
        return f"127.0.0.1:{self.registry_port}"

    @property
    def registry_port(self) -> int:
        """The port of the registry."""
        return self._port("registry", "127.0.0.1")

    @property
    def secret_key(self) -> str:
        """The secret key of the S3 server, generated once."""
        file = self.folder / "secret-key"
        if not file.exists():
            write_if_changed(file, secrets.token_urlsafe(24), mode=0o600)
        return file.read_text()

    def start_storage(self, steps: StepRunner) -> None:
        """Start the S3 server and wait until it answers."""
        program = toolchain.program("minio", steps)
        with steps.step("start S3 storage (MinIO)") as step:
            address = self.endpoint.removeprefix("http://")
            console = f"127.0.0.1:{self._port('minio-console', '127.0.0.1')}"
            data = self.folder / "storage"
            flags = ["--quiet", "--address", address, "--console-address", console]
            self.daemons.start(
                "minio",
                [program, "server", *flags, data],
                env={
                    "MINIO_ROOT_USER": ACCESS_KEY,
                    "MINIO_ROOT_PASSWORD": self.secret_key,
                    "MINIO_UPDATE": "off",
                    "MINIO_BROWSER": "off",
                },
            )
            self.daemons.wait("minio", lambda: answers(f"{self.endpoint}/minio/health/ready"))
            step.detail = self.endpoint

    def start_registry(self, steps: StepRunner) -> None:
        """Start the image registry, with its layers in the cache, and wait until it answers."""
        program = toolchain.program("registry", steps)
        with steps.step("start the image registry") as step:
            settings = yaml.safe_dump(self._registry_config())
            config = write_if_changed(self.folder / "registry.yaml", settings, mode=0o600)
            no_traces = {"OTEL_TRACES_EXPORTER": "none"}
            self.daemons.start("registry", [program, "serve", config], no_traces, reads=[config])
            self.daemons.wait("registry", lambda: answers(f"http://{self.registry}/v2/"))
            step.detail = self.registry

    def delete_unused_images(self, steps: StepRunner) -> None:
        """Delete the layers of untagged images; nothing may be pushed at the same time."""
        if not (_layers() / "docker/registry/v2/repositories").exists():
            return  # nothing was ever pushed, which the program takes for an error
        program, config = toolchain.program("registry", steps), self.folder / "registry.yaml"
        steps.run([program, "garbage-collect", "--quiet", "--delete-untagged", config])

    def stop(self) -> None:
        """Stop both servers, if they run."""
        for name in ("minio", "registry"):
            self.daemons.stop(name)

    def _registry_config(self) -> dict[str, object]:
        listen = "0.0.0.0" if self.exposed else "127.0.0.1"
        return {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(_layers())}},
            "http": {"addr": f"{listen}:{self.registry_port}", "secret": self.secret_key},
        }

    def _port(self, name: str, address: str) -> int:
        running = self.daemons.running(name.removesuffix("-console"))
        return Ports(self.folder / "ports.json").get(name, address, running=running)


def _layers() -> Path:
    """Return the folder in which the registry has its layers."""
    return folders.cache() / "registry"


def answers(url: str) -> bool:
    """Return whether a server answers with status 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
