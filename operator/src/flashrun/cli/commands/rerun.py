"""``flash rerun``: a new run from the spec of an old one, with changes."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from flashrun.api.resource import FlashRun
from flashrun.cli.cluster import deleted_runs, preflight, run_creation, submit
from flashrun.cli.cluster.connection import check_run_name, connect
from flashrun.cli.config import load_config, platform_cache
from flashrun.cli.config.compose import ComposedConfig, ConfigFile, compose
from flashrun.cli.config.dry_run import DryRunAnswers, print_dry_run, refuse_name
from flashrun.cli.config.run_spec import config_tables, given_secrets
from flashrun.cli.options import (
    Background,
    Context,
    DryRun,
    Logs,
    Namespace,
    Output,
    Overlays,
    Run,
    Server,
    Sets,
)
from flashrun.cli.output.failure import UsageFailure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.run_view import ViewKind, view_kind


def rerun(
    run: Run,
    overlays: Overlays = None,
    sets: Sets = None,
    dry_run: DryRun = False,
    server: Server = False,
    background: Background = False,
    logs: Logs = False,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Train again what a run trained, with changes.

    The spec of RUN takes the place of a config file: each --config file and each --set goes on top,
    and the whole is checked as with train. The environment's newest package is used. Values of
    secrets are read from this shell and its .env files again, never from the old run. A run whose
    FlashRun was deleted is read from storage.

    Example: flash rerun flash-1795370000-3fa9c1d2 --set train.learning_rate=5e-5
    """
    if server and not dry_run:
        raise UsageFailure("--server works only with --dry-run", "leave it out to train")
    if dry_run:
        refuse_name(output)
    asyncio.run(
        _rerun(
            check_run_name(run),
            overlays,
            sets,
            dry_run,
            server,
            background,
            view_kind(logs),
            output,
            namespace,
            context,
        )
    )


async def _rerun(
    name: str,
    overlays: Sequence[Path] | None,
    sets: Sequence[str] | None,
    dry_run: bool,
    server: bool,
    background: bool,
    view: ViewKind,
    output: OutputFormat,
    namespace: str | None,
    context: str | None,
) -> None:
    async with connect(context, namespace) as session:
        old = await deleted_runs.find_run(session, name)
        composed = compose_changes(old, overlays, sets)
        if dry_run and server:
            print_dry_run(composed, await preflight.run_checks(session, composed), output)
            return
        if dry_run:
            platform = await session.get_platform() or platform_cache.load_platform()
            notes = load_config.check_with_platform(composed, platform)
            print_dry_run(composed, DryRunAnswers(notes=[*notes]), output)
            return
        secrets = given_secrets(old)
        values = run_creation.find_secret_values(composed.config, may_be_missing=bool(secrets))
        new = run_creation.NewRun(composed, values, secrets)
        submission = submit.Submission(new, background, output, view)
        await submit.submit_and_follow(session, submission)


def compose_changes(
    old: FlashRun, overlays: Sequence[Path] | None, sets: Sequence[str] | None
) -> ComposedConfig:
    """Return the config of ``old`` with the overlays and the values of ``--set`` on top."""
    base = ConfigFile(f"run {old.name}", json.dumps(config_tables(old)).encode())
    return compose([base, *map(load_config.read_config_file, overlays or ())], sets or ())
