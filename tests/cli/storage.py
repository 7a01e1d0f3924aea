"""Put checkpoints, adapters and environments into storage as runs and pushes do."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flashrun.api import names
from flashrun.api.catalog import Catalog
from flashrun.api.records import (
    EnvironmentPointer,
    FileEntry,
    Manifest,
    MetricsRow,
    RunIdentity,
)
from flashrun.api.resource import FlashRun
from flashrun.plan.resolve import resolve_eval, resolve_run, resolve_train
from tests.cli.models.models import weights
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


def adapter_weights(layer: str = "model.layers.0.self_attn.q_proj") -> bytes:
    """A safetensors file of PEFT's, with one layer."""
    return weights(*(f"base_model.model.{layer}.lora_{side}.weight" for side in "AB"))


ADAPTER_CONFIG = {
    "peft_type": "LORA",
    "r": 32,
    "lora_alpha": 64,
    "target_modules": ["q_proj"],
    "base_model_name_or_path": "Qwen/Qwen3.5-4B",
}


def commit_adapter(
    served: Served, run: str, prefix: str, step: int | None = None, *, saved: Path | None = None
) -> str:
    """Commit an adapter of a run as its trainer does; return its prefix.

    ``prefix`` is the run's. The final adapter has a model card of the trainer. Its files are those
    of the folder ``saved``, if it is given.
    """
    place = names.adapter_prefix(prefix) if step is None else names.step_prefix(prefix, 1, step)
    folder = names.adapter_folder(1) if step is None else "adapter"
    adapter = {
        "adapter_config.json": json.dumps(ADAPTER_CONFIG).encode(),
        "adapter_model.safetensors": adapter_weights(),
    }
    if saved is not None:
        adapter = {name: (saved / name).read_bytes() for name in adapter}
    files = {f"{folder}/{name}": data for name, data in adapter.items()}
    files |= {f"{folder}/README.md": b"# of the trainer\n"} if step is None else {
        "state/optimizer.pt": b"state"
    }  # fmt: skip
    entries = []
    for path, data in files.items():
        served.store.put_bytes(place + path, data)
        digest = hashlib.sha256(data).hexdigest()
        entries.append(FileEntry(path=path, size=len(data), sha256=digest))
    uid = prefix.rstrip("/").rpartition("/")[2]
    manifest = Manifest(
        kind="adapter" if step is None else "checkpoint",
        run=RunIdentity(namespace=served.namespace, name=run, uid=uid),
        attempt=1,
        step=step,
        base_model="Qwen/Qwen3.5-4B",
        lora_rank=32,
        lora_alpha=64,
        created=datetime.now(UTC),
        files=tuple(entries),
    )
    served.store.put_json(place + names.MANIFEST, manifest)
    return place


def trained_run(served: Served, *steps: int) -> str:
    """Submit a run that leaves its final adapter and the checkpoints of ``steps``."""
    served.push()
    name = served.submit()
    prefix = store_spec(served, name)
    for step in (*steps, None):
        commit_adapter(served, name, prefix, step)
    return name
