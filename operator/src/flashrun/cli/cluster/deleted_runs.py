"""Runs whose FlashRun was deleted: storage has the operator's copy, and the trainer's spec."""

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from flashrun.api import names
from flashrun.api.config import EvalConfig, RunConfig
from flashrun.api.records import ResolvedEval, ResolvedRun
from flashrun.api.resource import FlashRun, FlashRunSpec, FlashRunStatus, ResolvedStatus
from flashrun.api.run_record import RunRecord
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.output.failure import Failure, NotFoundFailure
from flashrun.store_errors import Corrupt, KeyNotFound, StoreError

if TYPE_CHECKING:
    from flashrun.store import Store

StoredRecord = TypeVar("StoredRecord", RunRecord, ResolvedRun)


async def find_run(session: ClusterSession, name: str) -> FlashRun:
    """Return a run from the API server, or from storage when it was deleted.

    Raises:
        NotFoundFailure: it is in neither of them.
    """
    try:
        return await session.get_run(name)
    except NotFoundFailure as missing:
        run = await _find_stored_run(session, name)
        if run is None:
            raise missing from None
        return run


def is_deleted(run: FlashRun) -> bool:
    """Return whether ``find_run`` has found a run in storage alone."""
    return run.created is None


async def _find_stored_run(session: ClusterSession, name: str) -> FlashRun | None:
    """Return the newest run of this name that storage has, or None."""
    prefix = names.run_name_prefix(session.namespace, name)
    try:
        return await session.with_store(lambda store: _newest_run(store, prefix))
    except (Failure, StoreError):
        return None  # "there is no run" helps more than an error of storage


def _newest_run(store: "Store", prefix: str) -> FlashRun | None:
    """Return the newest of the runs below ``prefix``, by the operator's copy and the trainer's.

    The copy has spec and status; only the trainer's has what a pod of an older version resolved.
    """
    found: list[tuple[str, FlashRun]] = []
    for folder in store.list(prefix, recursive=False):
        times = {
            entry.key: str(entry.modified) for entry in store.list(folder.key, recursive=False)
        }
        keys = (names.run_record_key(folder.key), names.spec_key(folder.key))
        written = [times[key] for key in keys if key in times]
        copy = _read(store, keys[0], RunRecord) if keys[0] in times else None
        resolved = _read(store, keys[1], ResolvedRun) if keys[1] in times else None
        run = _run_of(folder.key, copy, resolved)
        if run is not None:
            found.append((max(written), run))
    return max(found, key=lambda item: item[0])[1] if found else None


def _run_of(prefix: str, copy: RunRecord | None, resolved: ResolvedRun | None) -> FlashRun | None:
    by_trainer = run_from_record(resolved) if resolved is not None else None
    if copy is None:
        return by_trainer
    try:
        run = copy.to_run()
    except ValidationError:
        return by_trainer
    if run.storage_prefix != prefix:
        return by_trainer
    if run.status.resolved is None and by_trainer is not None:
        return run.replace(status=run.status.replace(resolved=by_trainer.status.resolved))
    return run


def _read(store: "Store", key: str, model: type[StoredRecord]) -> StoredRecord | None:
    try:
        return store.get_json(key, model)
    except (Corrupt, KeyNotFound):
        return None


def run_from_record(record: ResolvedRun) -> FlashRun:
    """Return the run of a resolved spec; what was a default then is an explicit value now."""
    config = RunConfig.validate_toml(_config_tables(record))
    resolved = ResolvedStatus(
        image=record.image,
        environment_digest=record.environment.digest,
        model_source=record.model.source,
        model_revision=record.model.revision,
        gpus=record.scale.world_size,
        nodes=record.scale.nodes,
        sharded=record.scale.sharded,
        train={
            "lora_rank": str(record.train.lora_rank),
            "lora_alpha": str(record.train.lora_alpha),
        },
    )
    return FlashRun(
        name=record.run.name,
        namespace=record.run.namespace,
        uid=record.run.uid,
        spec=FlashRunSpec.from_config(config),
        status=FlashRunStatus(resolved=resolved),
    )


def _config_tables(record: ResolvedRun) -> dict[str, Any]:
    environment, start = record.environment, record.init_from_adapter
    train = record.train.model_dump(mode="json")
    if start is not None:
        del train["lora_rank"], train["lora_alpha"]  # they come with the adapter
        train["init_from_adapter"] = start.ref
    own_name = names.wandb_run_name(record.algorithm, record.run.name)
    return {
        "model": record.model.id,
        "algorithm": str(record.algorithm),
        "thinking": record.thinking,
        "environment": {
            "id": environment.id,
            "params": environment.params,
            "pip": list(environment.pip),
            "secrets": list(environment.secrets),
        },
        "train": train,
        "eval": _eval_table(record.eval),
        "worker_env": record.worker_env,
        "wandb": {
            "project": record.wandb.project,
            **({} if record.wandb.run_name == own_name else {"run_name": record.wandb.run_name}),
        },
    }


def _eval_table(resolved: ResolvedEval | None) -> dict[str, Any]:
    if resolved is None:
        return {"enabled": False}
    left_out = (("split", not resolved.required), ("max_examples", resolved.may_shrink))
    keys = set(EvalConfig.model_fields) - {key for key, without in left_out if without}
    return resolved.model_dump(mode="json", include=keys, exclude_none=True)
