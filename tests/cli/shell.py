"""The command line as its users run it: a process, a kubeconfig, nothing else."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flashrun import __version__
from flashrun.api import names
from flashrun.api.platform import Platform, Pool, StorageSettings, TrainerSettings
from flashrun.api.public import FILE, PublicPlatform
from flashrun.store import Store
from tests.api_server import api_server
from tests.cli.forked_commands import Redirected, closed_streams, fork_server, opened_streams
from tests.servers import kubectl

ROOT = Path(__file__).parents[2]
PYTHON_PATH = str(ROOT / "operator" / "src")
MAIN = f"{PYTHON_PATH}/flashrun/cli/main.py"
SECONDS = 120
"""Longest time for a command."""
REFERENCE = """\
model = "Qwen/Qwen3.5-4B"
algorithm = "sft"

[environment]
id = "your-org/your-env"

[train]
epochs = 3
max_examples = 1000
lora_rank = 32
"""
"""The example that the config reference begins with."""
WITH_SECRETS = REFERENCE.replace("[train]", 'secrets = ["SERVICE_API_KEY", "OTHER"]\n\n[train]')
"""The example with two secrets."""
WARM_START = REFERENCE.replace("lora_rank = 32\n", "")
"""The example without a rank, which a warm start takes from its adapter."""
SERVER_DRY_RUN = ("train", "config.toml", "--dry-run", "--server")


UNTOUCHED: Redirected = MappingProxyType({})
"""All streams are pipes that are read."""


@dataclass(frozen=True)
class Shell:
    """A folder with a shell in it; ``variables`` are what the user exported."""

    folder: Path
    kubeconfig: Path | None = None
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, *words: str, stdin: str | None = None, redirected: Redirected = UNTOUCHED
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a fork of a process that has imported the command line."""
        server = fork_server(PYTHON_PATH)
        return server.run([MAIN, *words], self.environment, self.folder, stdin, SECONDS, redirected)

    def in_new_process(
        self, *words: str, stdin: str | None = None, redirected: Redirected = UNTOUCHED
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a process that starts anew: for tests of what happens at its start."""
        opened, closed = opened_streams(redirected), closed_streams(redirected)

        def close() -> None:
            for number in closed:
                os.close(number)

        try:
            return subprocess.run(
                self.argv(*words),
                env=self.environment,
                cwd=self.folder,
                input=stdin,
                stdout=opened.get(1, subprocess.PIPE),
                stderr=opened.get(2, subprocess.PIPE),
                encoding=self.environment.get("PYTHONIOENCODING"),
                text=True,
                check=False,
                timeout=SECONDS,
                preexec_fn=close if closed else None,
            )
        finally:
            for descriptor in opened.values():
                os.close(descriptor)

    def argv(self, *words: str) -> Sequence[str]:
        return [sys.executable, "-m", "flashrun.cli.main", *words]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": PYTHON_PATH,
            "COLUMNS": "200",
            **({"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {}),
            **self.variables,
        }

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path


@dataclass(frozen=True)
class Served:
    """A namespace that the platform serves, as its people see it."""

    flash: Shell
    kubeconfig: Path
    namespace: str
    store: Store

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return kubectl(self.kubeconfig, "-n", self.namespace, *words, stdin=stdin)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return api_server(self.kubeconfig).get(kind, self.namespace, name)

    def apply(self, manifest: dict[str, Any]) -> None:
        """Create an object of the namespace, or change it."""
        metadata = {**manifest["metadata"], "namespace": self.namespace}
        api_server(self.kubeconfig).apply({**manifest, "metadata": metadata})

    def count(self, kind: str) -> int:
        return len(api_server(self.kubeconfig).get(kind, self.namespace)["items"])

    def push(self, identifier: str = "your-org/your-env") -> None:
        """Publish an environment of one file."""
        self.flash.write("env/environment.py", "def load_environment(): ...\n")
        done = self.flash("env", "push", "env", "--name", identifier)
        assert done.returncode == 0, done.stderr

    def give_mirror(self) -> None:
        """Publish the model mirror as the operator does; its Secret is in this namespace, too."""
        secret = published(self.store)["items"][1]
        secret["metadata"]["name"] = names.STORAGE_MODELS_SECRET
        self.publish(models_namespace=self.namespace)
        self.apply(secret)

    def submit(self, *words: str) -> str:
        done = self.flash("train", "config.toml", "--background", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def publish(self, **told: Any) -> None:
        """Tell people about the platform, as the operator does; ``told`` is on top."""
        told = {"environment_orgs": (self.namespace, *ORGS), **told}
        for manifest in published(self.store, told)["items"]:
            self.apply(manifest)

    def publish_address(self, **told: Any) -> None:
        """Tell people about the platform as ``publish``, and leave their Secret as it is."""
        told = {"environment_orgs": (self.namespace, *ORGS), **told}
        self.apply(published(self.store, told)["items"][0])

    def report(self, run: str, **status: Any) -> None:
        """Write a status, as the operator would: nothing of the default is left."""
        status = {"pending": None, "conditions": [], **status}
        server = api_server(self.kubeconfig)
        server.merge("flashrun", self.namespace, run, {"status": status}, of="status")


def about_rows(done: subprocess.CompletedProcess[str]) -> str:
    """Return what ``flash env test`` says, without its note about this machine's Python."""
    lines = done.stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("note: this is Python "))


ORGS = ("your-org", "org", "org2")
"""Orgs that are bound to the namespace besides that of its own name."""


def published(store: Store, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the ConfigMap and the Secret for people."""
    access = store.access
    platform = Platform(
        storage=StorageSettings(endpoint=access.endpoint, bucket=access.bucket),
        trainer=TrainerSettings(image="registry/trainer@sha256:0"),
        pools=(Pool(name="h100", vram=80),),
    )
    public = PublicPlatform.of(platform, version=__version__, updated=datetime.now(UTC))
    told = public.model_copy(update=changes or {}).model_dump_json(by_alias=True, exclude_none=True)
    secret = base64.b64encode(access.model_dump_json(exclude_none=True).encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": names.PUBLIC_CONFIG_MAP},
                "data": {FILE: told},
            },
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": names.STORAGE_USER_SECRET},
                "data": {"access.json": secret},
            },
        ],
    }


def ask_server(served: Served, *words: str) -> dict[str, Any]:
    """Return the answers of a dry run with the server."""
    done = served.flash(*SERVER_DRY_RUN, "-o", "json", *words)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (2 if found["problems"] else 0), done.stderr
    return found
