"""From a checked config to a run in the cluster, followed to its end; for train and rerun."""

import asyncio
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashrun.api import names
from flashrun.api.config import RunConfig
from flashrun.api.resource import FlashRun, manifest
from flashrun.cli.cluster import adapters, follow
from flashrun.cli.cluster.connection import Session, parsed
from flashrun.cli.commands.render import spec_of
from flashrun.cli.commands.status import print_run
from flashrun.cli.config import dotenv, load_config, platform_cache
from flashrun.cli.config.compose import Composed
from flashrun.cli.options import Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure, UsageFailure
from flashrun.cli.output.tables import Tone


@dataclass(frozen=True)
class Submission:
    """A composed config, the values of its secrets, and what becomes of the terminal."""

    composed: Composed
    values: Mapping[str, str]
    background: bool
    output: Output
    secret_refs: tuple[str, ...] = ()
    """Secrets that exist already and are looked into after the one that is made."""


def secret_values(
    config: RunConfig, beside: Iterable[Path] = (), *, elsewhere: bool = False
) -> dict[str, str]:
    """Return the values of the names that a config lists, and W&B's key if there is one.

    They come from the shell and from files here and in the folders ``beside``; ``elsewhere`` says
    that what is not found may be in a Secret that exists.

    Raises:
        UsageFailure: with every name that has no value.
    """
    folders = dict.fromkeys((Path.cwd(), *beside))
    places = dotenv.sources(os.environ, folders)
    listed = config.environment.secrets
    found = dotenv.lookup((*listed, names.WANDB_API_KEY), places)
    missing = [name for name in listed if name not in found]
    if missing and not elsewhere:
        raise UsageFailure(
            f"environment.secrets names {', '.join(missing)}, but no value is set; nothing is sent",
            f"set each in your shell, or in {' or '.join(dotenv.FILES)} here or beside the config",
        )
    return found


async def start(session: Session, submission: Submission) -> None:
    """Check against the cluster, create the run, and follow it unless it goes to the background."""
    await checked(session, submission.composed)
    name = names.run_name(int(time.time()), secrets.token_hex(4))
    run = await submit(session, name, submission)
    terminal.say(f"submitted {run.namespace}/{name}")
    if submission.background:
        _print_submitted(await session.manifest(name), submission.output)
        return
    with follow.view() as shown:
        await follow.watch(name, follow.follow(session, name, shown))
    finished = await session.manifest(name)
    print_run(finished, submission.output)
    follow.conclude(parsed(finished))


def _print_submitted(run: dict[str, Any], output: Output) -> None:
    if output in (Output.JSON, Output.YAML):
        terminal.write_data(run, output)
    else:
        terminal.write(run["metadata"]["name"])


async def checked(session: Session, composed: Composed) -> None:
    """Check against the platform as it is now, as far as it lets us see."""
    platform = await session.platform() or platform_cache.platform()
    for warning in load_config.checked(composed, platform):
        terminal.say(f"note: {warning}")
    environment = composed.config.environment.id
    key = names.environment_latest_key(environment)
    try:
        exists = await session.stored(lambda store: store.exists(key))
        start = await adapters.look(session, composed.config)
    except Exception as error:
        # The operator asks storage again, and its answer counts.
        terminal.say(f"note: storage was not checked from here: {error}", Tone.QUIET)
        return
    if not exists:
        raise UsageFailure(
            f"environment {environment} has not been pushed to this platform",
            f"push its folder: flash env push FOLDER --name {environment}",
        )
    if start.problem is not None:
        raise UsageFailure(str(start.problem))


async def submit(session: Session, name: str, submission: Submission) -> FlashRun:
    """Create the run, then the Secret it owns: a crash in between leaves no values behind."""
    values = submission.values
    own = (names.submitted_secret_name(name),) if values else ()
    spec = spec_of(submission.composed.config, (*own, *submission.secret_refs))
    created = await session.cluster.create(
        manifest(name, session.namespace, spec), names.CLI_FIELD_MANAGER
    )
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
            raise Failure(f"the run was taken back, as its Secret was refused: {error}") from None
    return run


def secret_metadata(run: FlashRun) -> dict[str, Any]:
    """Return the metadata of the Secret with the submitter's values; it goes with its run."""
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
