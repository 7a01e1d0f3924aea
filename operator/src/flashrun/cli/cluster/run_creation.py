"""From a composed config to a run in the cluster, for commands and the Python client.

Nothing here prints.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashrun.api import names
from flashrun.api.config import RunConfig
from flashrun.api.resource import FlashRun
from flashrun.api.sweep import SweepMembership
from flashrun.cli.cluster import adapters, published_environments
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.config import dotenv, load_config, platform_cache
from flashrun.cli.config.compose import ComposedConfig
from flashrun.cli.config.run_spec import run_manifest
from flashrun.cli.output.failure import Failure, UsageFailure
from flashrun.cluster_errors import ClusterError


@dataclass(frozen=True)
class NewRun:
    """A run to create: its config, and the values of its secrets."""

    composed: ComposedConfig
    secret_values: Mapping[str, str] = field(repr=False)
    given_secrets: tuple[str, ...] = ()
    """Names of Secrets that exist already; looked up after the Secret of this run."""
    sweep: SweepMembership | None = None
    """The sweep that the run belongs to, if it does."""


def find_secret_values(
    config: RunConfig, folders: Iterable[Path] = (), *, may_be_missing: bool = False
) -> dict[str, str]:
    """Return the values of ``environment.secrets``, and the W&B key if there is one.

    They come from the shell and from ``.env`` files here and in ``folders``. ``may_be_missing`` is
    for runs that also look up Secrets that exist already.

    Raises:
        UsageFailure: with every name that has no value.
    """
    listed = config.environment.secrets
    values = dotenv.find_values((*listed, names.WANDB_API_KEY), folders)
    missing = [name for name in listed if name not in values]
    if missing and not may_be_missing:
        raise UsageFailure(
            f"environment.secrets names {', '.join(missing)}, but no value is set; nothing is sent",
            f"set each in your shell, or in {' or '.join(dotenv.FILES)} here or beside the config",
        )
    return values


async def check_with_cluster(
    session: ClusterSession, composed: ComposedConfig, note: Callable[[str], object]
) -> None:
    """Check a config against the platform and its storage, as far as they can be read from here.

    ``note`` gets what the submitter should know although the run is not refused, one sentence each.

    Raises:
        ConfigError, UsageFailure: the operator would refuse the run.
    """
    await session.refuse_unserved_namespace()
    platform = await session.get_platform() or platform_cache.load_platform()
    for sentence in load_config.check_with_platform(composed, platform):
        note(sentence)
    environment = composed.config.environment.id
    await published_environments.check_owner(session, environment)
    key = names.environment_latest_key(environment)
    try:
        published = await session.with_store(lambda store: store.exists(key))
        start = await adapters.find_warm_start(session, composed.config)
    except Exception as error:
        # Not fatal: the operator checks storage again, and its answer decides.
        note(f"storage was not checked from here: {error}")
        return
    if not published:
        raise UsageFailure(
            f"environment {environment} has not been pushed to this platform",
            f"push its folder: flash env push FOLDER --name {environment}",
        )
    if start.problem is not None:
        raise UsageFailure(str(start.problem))


def new_run_name() -> str:
    """Return the name of a run that is submitted now."""
    return names.run_name(int(time.time()), secrets.token_hex(4))


async def create_run(session: ClusterSession, name: str, new: NewRun) -> FlashRun:
    """Create the run, then the Secret with the submitter's values, which the run owns.

    In this order a crash in between leaves no values behind.
    """
    values = new.secret_values
    own = (names.submitted_secret_name(name),) if values else ()
    manifest = run_manifest(
        new.composed.config,
        name,
        session.namespace,
        (*own, *new.given_secrets),
        new.sweep,
    )
    with contextlib.suppress(ClusterError):  # it only says in flash cost whose run it was
        manifest["metadata"]["annotations"] = {
            names.USER_ANNOTATION: await session.cluster.user_name()
        }
    created = await session.cluster.create(manifest, names.CLI_FIELD_MANAGER, strict=True)
    run = FlashRun.from_manifest(created)
    if values:
        try:
            await session.cluster.create_secret(
                secret_metadata(run), values, names.CLI_FIELD_MANAGER
            )
        except (Exception, asyncio.CancelledError) as error:
            # Without its Secret the run would wait for ever.
            await session.cluster.delete(names.KIND, run.namespace, name, uid=run.uid)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise Failure(f"the run was deleted, as its Secret was refused: {error}") from None
    return run


def secret_metadata(run: FlashRun) -> dict[str, Any]:
    """Return the metadata of the Secret with the submitter's values; it is deleted with its run."""
    return {
        "name": names.submitted_secret_name(run.name),
        "namespace": run.namespace,
        "labels": {
            names.SECRETS_LABEL: "true",
            names.RUN_LABEL: run.name,
            names.RUN_UID_LABEL: run.uid,
        },
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": run.name,
                "uid": run.uid,
            }
        ],
    }
