"""Runs whose FlashRun is gone: the resolved spec that the trainer was given stays in storage."""

from typing import Any

from flashrun.api import names
from flashrun.api.config import Algorithm, RunConfig
from flashrun.api.records import ResolvedRun
from flashrun.api.resource import FlashRun, FlashRunSpec, FlashRunStatus, ResolvedStatus
from flashrun.cli.cluster.connection import Session
from flashrun.cli.output.failure import Failure, NotFoundFailure


async def find(session: Session, name: str) -> FlashRun:
    """Return a run as the API server has it, or else as storage remembers it.

    Raises:
        NotFoundFailure: neither knows it.
    """
    try:
        return await session.run(name)
    except NotFoundFailure as missing:
        record = await _record(session, name)
        if record is None:
            raise missing from None
        return remembered(record)


async def _record(session: Session, name: str) -> ResolvedRun | None:
    """Return the resolved spec of the newest run of this name, or None."""
    from flashrun.store_errors import StoreError

    prefix = names.run_name_prefix(session.namespace, name)
    try:
        entries = await session.stored(lambda store: list(store.list(prefix)))
        kept = [
            entry
            for entry in entries
            if entry.key == names.spec_key(entry.key.rpartition("/")[0] + "/")
        ]
        if not kept:
            return None
        newest = max(kept, key=lambda entry: str(entry.modified)).key
        return await session.stored(lambda store: store.get_json(newest, ResolvedRun))
    except (Failure, StoreError):
        return None  # that there is no such run says more


def remembered(record: ResolvedRun) -> FlashRun:
    """Return the run that a resolved spec was made from; defaults are given values now."""
    config = RunConfig.validate_toml(_tables(record))
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


def _tables(record: ResolvedRun) -> dict[str, Any]:
    environment, start = record.environment, record.init_from_adapter
    train = record.train.model_dump(mode="json", exclude_none=True)
    unused = {"max_steps"} if record.algorithm is Algorithm.GRPO else {"stop_sequences"}
    if start is not None:
        unused |= {"lora_rank", "lora_alpha"}  # they come with the adapter
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
        "train": {key: value for key, value in train.items() if key not in unused},
        "worker_env": record.worker_env,
        "wandb": {
            "project": record.wandb.project,
            **({} if record.wandb.run_name == own_name else {"run_name": record.wandb.run_name}),
        },
    }
