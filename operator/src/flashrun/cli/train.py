"""``flash train``: check a config here, submit it, follow the run."""

import asyncio
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flashrun.cli import dotenv, follow, known, render, source, terminal
from flashrun.cli.failure import ExitCode, Failure, UsageFailure
from flashrun.cli.options import Config, Context, Form, Namespace, Output, Overlays, Sets
from flashrun.cli.render import Tone
from flashrun.cli.session import Session, connect, parsed
from flashrun.cli.status import print_run
from flashrun.spec import names
from flashrun.spec.compose import Composed
from flashrun.spec.config import RunConfig
from flashrun.spec.run import FlashRun, FlashRunSpec, SecretRef, manifest


def train(
    config: Config,
    overlays: Overlays = None,
    sets: Sets = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and print the resolved run; submit nothing.")
    ] = False,
    background: Annotated[
        bool, typer.Option("--background", help="Submit, print the run's name, and return.")
    ] = False,
    output: Form = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Train the adapter that CONFIG describes.

    The config is composed of CONFIG, each --config file and each --set, in this order, and checked
    as a whole. --dry-run needs no cluster. Ctrl-C leaves the run running.

    Example: flash train config.toml --set train.steps=300 --set train.lora_rank=16
    """
    composed = source.read(config, overlays, sets)
    if dry_run:
        _print_resolved(composed, output)
        return
    values = secret_values(composed.config, config)
    name = names.run_name(int(time.time()), secrets.token_hex(4))
    asyncio.run(_train(composed, name, values, background, output, namespace, context))


def _print_resolved(composed: Composed, output: Output) -> None:
    for warning in source.checked(composed, known.platform().catalog()):
        terminal.say(f"note: {warning}")
    found = render.settings(composed)
    if output in (Output.JSON, Output.YAML):
        answer = {
            "state": "dry_run",
            "spec": render.resolved_tables(found),
            "sources": render.origins(found),
        }
        terminal.write_data(answer, output)
    else:
        terminal.write(render.resolved_toml(found).rstrip("\n"))


def secret_values(config: RunConfig, path: Path) -> dict[str, str]:
    """Return the values of the names that a config lists, and W&B's key if there is one.

    Raises:
        UsageFailure: with every name that has no value.
    """
    folders = dict.fromkeys((Path.cwd(), path.resolve().parent))
    places = dotenv.sources(os.environ, folders)
    listed = config.environment.secrets
    found = dotenv.lookup((*listed, names.WANDB_API_KEY), places)
    if missing := [name for name in listed if name not in found]:
        raise UsageFailure(
            f"environment.secrets names {', '.join(missing)}, but no value is set; nothing is sent",
            f"set each in your shell, or in {' or '.join(dotenv.FILES)} here or beside the config",
        )
    return found


async def _train(
    composed: Composed,
    name: str,
    values: Mapping[str, str],
    background: bool,
    output: Output,
    namespace: str | None,
    context: str | None,
) -> None:
    async with connect(context, namespace) as session:
        await _checked(session, composed)
        run = await submit(session, name, composed.config, values)
        terminal.say(f"submitted {run.namespace}/{name}")
        if background:
            _print_submitted(await session.manifest(name), output)
            return
        try:
            with follow.view() as shown:
                await follow.follow(session, name, shown)
        except asyncio.CancelledError:  # Ctrl-C
            terminal.say(
                f"detached from {name}. Come back: flash log {name} -f; "
                f"stop it: flash cancel {name}"
            )
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        finished = await session.manifest(name)
        print_run(finished, output)
        follow.conclude(parsed(finished))


def _print_submitted(run: dict[str, Any], output: Output) -> None:
    if output in (Output.JSON, Output.YAML):
        terminal.write_data(run, output)
    else:
        terminal.write(run["metadata"]["name"])


async def _checked(session: Session, composed: Composed) -> None:
    """Check against the platform as it is now, as far as it lets us see."""
    platform = await session.platform() or known.platform()
    for warning in source.checked(composed, platform.catalog()):
        terminal.say(f"note: {warning}")
    environment = composed.config.environment.id
    key = names.environment_latest_key(environment)
    try:
        exists = await session.stored(lambda store: store.exists(key))
    except Exception as error:
        # The operator asks storage again, and its answer counts.
        terminal.say(f"note: could not check that {environment} exists: {error}", Tone.QUIET)
        return
    if not exists:
        raise UsageFailure(
            f"environment {environment} has not been pushed to this platform",
            f"push its folder: flash env push FOLDER --name {environment}",
        )


async def submit(
    session: Session, name: str, config: RunConfig, values: Mapping[str, str]
) -> FlashRun:
    """Create the run, then the Secret it owns: a crash in between leaves no values behind."""
    refs = (names.submitted_secret_name(name),) if values else ()
    created = await session.cluster.create(
        manifest(name, session.namespace, spec_of(config, refs)), names.CLI_FIELD_MANAGER
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


def spec_of(config: RunConfig, secret_refs: Sequence[str]) -> FlashRunSpec:
    """Return the spec of ``config`` whose secrets are looked up in ``secret_refs``."""
    return FlashRunSpec.from_config(config, tuple(SecretRef(name=name) for name in secret_refs))


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
