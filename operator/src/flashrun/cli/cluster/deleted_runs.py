"""Runs whose FlashRun was deleted: the resolved spec of the trainer is still in storage."""

from typing import Any

from flashrun.api import names
from flashrun.api.config import EvalConfig, RunConfig
from flashrun.api.records import ResolvedEval, ResolvedRun
from flashrun.api.resource import FlashRun, FlashRunSpec, FlashRunStatus, ResolvedStatus
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.output.failure import Failure, NotFoundFailure
from flashrun.store_errors import StoreError


async def find_run(session: ClusterSession, name: str) -> FlashRun:
    """Return a run from the API server, or from storage when it was deleted.

    Raises:
        NotFoundFailure: it is in neither of them.
    """
    try:
        return await session.get_run(name)
    except NotFoundFailure as missing:
        record = await _read_record(session, name)
        if record is None:
            raise missing from None
        return run_from_record(record)


async def _read_record(session: ClusterSession, name: str) -> ResolvedRun | None:
    """Return the resolved spec of the newest run of this name, or None."""
    prefix = names.run_name_prefix(session.namespace, name)
    try:
        entries = await session.with_store(lambda store: list(store.list(prefix)))
        records = [
            entry
            for entry in entries
            if entry.key == names.spec_key(entry.key.rpartition("/")[0] + "/")
        ]
        if not records:
            return None
        newest = max(records, key=lambda entry: str(entry.modified)).key
        return await session.with_store(lambda store: store.get_json(newest, ResolvedRun))
    except (Failure, StoreError):
        return None  # "there is no run" helps more than an error of storage


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
