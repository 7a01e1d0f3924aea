"""Put checkpoints, adapters and environments into storage as runs and pushes do."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flashrun.api import names
from flashrun.api.records import EnvironmentPointer, Manifest
from tests.cli.shell import Served


def upload_folder(
    served: Served, prefix: str, kind: str, files: dict[str, bytes], folder: Path
) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    created = datetime.now(UTC)
    served.store.upload_folder(
        prefix, folder, lambda entries: Manifest(kind=kind, created=created, files=entries)
    )


def write_environment(served: Served, code: str = "def load_environment(): ...\n") -> None:
    served.flash.write("env/environment.py", code)
    served.flash.write("env/dataset/train.jsonl", '{"input": "1 + 1"}\n')


def list_packages(served: Served, identifier: str) -> list[str]:
    keys = [entry.key for entry in served.store.list(names.environment_prefix(identifier))]
    return [key for key in keys if key.endswith(".tar.gz")]


def newest_digest(served: Served, identifier: str) -> str:
    latest = names.environment_latest_key(identifier)
    return served.store.get_json(latest, EnvironmentPointer).digest


CREATED = "2026-11-22T12:00:00Z"


def checkpoint(run: str, step: int) -> dict[str, Any]:
    return {"ref": f"{run}/step-{step}", "step": step, "bytes": 2048, "createdTime": CREATED}
