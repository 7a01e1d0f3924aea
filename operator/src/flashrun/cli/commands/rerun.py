"""``flash rerun``: a new run from the spec of an old one, with changes."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashrun.api import names
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster import deleted_runs, submit
from flashrun.cli.cluster.connection import connect, run_name
from flashrun.cli.commands.train import print_resolved, refuse_name
from flashrun.cli.config import load_config
from flashrun.cli.config.compose import Composed, ConfigFile
from flashrun.cli.options import (
    Background,
    Context,
    DryRun,
    Form,
    Namespace,
    Output,
    Overlays,
    Run,
    Sets,
)


def rerun(
    run: Run,
    overlays: Overlays = None,
    sets: Sets = None,
    dry_run: DryRun = False,
    background: Background = False,
    output: Form = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Train again what a run trained, with changes.

    The spec of RUN takes the place of a config file: each --config file and each --set goes on top,
    and the whole is checked as train does it. The environment's newest package is used. Values of
    secrets are taken from this shell and its .env files again, never from the old run. A run whose
    FlashRun was deleted is taken from storage.

    Example: flash rerun flash-1795370000-3fa9c1d2 --set train.learning_rate=5e-5
    """
    if dry_run:
        refuse_name(output)
    asyncio.run(
        _rerun(run_name(run), overlays, sets, dry_run, background, output, namespace, context)
    )


async def _rerun(
    name: str,
    overlays: Sequence[Path] | None,
    sets: Sequence[str] | None,
    dry_run: bool,
    background: bool,
    output: Output,
    namespace: str | None,
    context: str | None,
) -> None:
    async with connect(context, namespace) as session:
        old = await deleted_runs.find(session, name)
        composed = changed(old, overlays, sets)
        if dry_run:
            await session.platform()  # what it publishes is known afterwards
            print_resolved(composed, output)
            return
        refs = foreign_secrets(old)
        values = submit.secret_values(composed.config, elsewhere=bool(refs))
        await submit.start(
            session, submit.Submission(composed, values, background, output, secret_refs=refs)
        )


def changed(old: FlashRun, overlays: Sequence[Path] | None, sets: Sequence[str] | None) -> Composed:
    """Return the config of ``old`` with the files and values of ``--set`` on top."""
    base = ConfigFile(f"run {old.name}", json.dumps(config_of(old)).encode())
    return load_config.composed([base, *map(load_config.file, overlays or ())], sets)


def config_of(run: FlashRun) -> dict[str, Any]:
    """Return a run's spec as the tables of a config; what only a cluster has is left out."""
    return run.spec.model_dump(
        mode="json", exclude_unset=True, exclude={"secret_refs", "control"}, by_alias=False
    )


def foreign_secrets(run: FlashRun) -> tuple[str, ...]:
    """Return the Secrets that a run was pointed to, other than the one made for it alone."""
    own = names.submitted_secret_name(run.name)
    return tuple(ref.name for ref in run.spec.secret_refs if ref.name != own)
