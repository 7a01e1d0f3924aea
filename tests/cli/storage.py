"""Put checkpoints, adapters and environments into storage as runs and pushes do."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flashrun.api import names
from flashrun.api.catalog import Catalog
from flashrun.api.records import EnvironmentPointer, Manifest, MetricsRow, RunIdentity
from flashrun.api.resource import FlashRun
from flashrun.plan.resolve import resolve_eval, resolve_run, resolve_train
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


def store_spec(served: Served, run: str) -> str:
    """Write a submitted run's resolved spec, as its trainer does; return the run's prefix."""
    found = FlashRun.from_manifest(served.get("flashrun", run))
    train = resolve_train(found.spec)
    record = resolve_run(
        found.spec,
        identity=RunIdentity(namespace=found.namespace, name=run, uid=found.uid),
        model=next(model for model in Catalog() if model.id == found.spec.model),
        environment_digest="0" * 64,
        train=train,
        eval_settings=resolve_eval(found.spec, train),
    )
    served.store.put_json(names.spec_key(found.storage_prefix), record)
    return found.storage_prefix


def metrics_rows(*rows: Mapping[int, Mapping[str, float]]) -> list[MetricsRow]:
    """Rows of a history with these values of steps."""
    return [
        MetricsRow(step=step, attempt=1, time=CREATED, values=values)
        for row in rows
        for step, values in row.items()
    ]


def metrics_history(*rows: Mapping[int, Mapping[str, float]]) -> bytes:
    """A ``metrics.jsonl`` with these values of steps."""
    return "".join(f"{row.model_dump_json()}\n" for row in metrics_rows(*rows)).encode()


CREATED = "2026-11-22T12:00:00Z"


def checkpoint(run: str, step: int) -> dict[str, Any]:
    return {"ref": f"{run}/step-{step}", "step": step, "bytes": 2048, "createdTime": CREATED}
