"""``flash train``: check a config here, submit it, follow the run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashrun.cli.config import load_config
from flashrun.cli.config.dry_run import DryRunAnswers, ask_offline, print_dry_run, refuse_name
from flashrun.cli.options import (
    Background,
    Config,
    Context,
    DryRun,
    Namespace,
    Output,
    Overlays,
    Sets,
)
from flashrun.cli.output.failure import UsageFailure
from flashrun.cli.output.output_format import OutputFormat

if TYPE_CHECKING:
    from flashrun.cli.config.compose import ComposedConfig


def train(
    config: Config,
    overlays: Overlays = None,
    sets: Sets = None,
    dry_run: DryRun = False,
    server: Annotated[
        bool, typer.Option("--server", help="With --dry-run: ask the cluster, too.")
    ] = False,
    background: Background = False,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Train the adapter that a config describes.

    The config is composed of CONFIG, each --config file and each --set, in this order, and checked
    as a whole. --dry-run needs no cluster; with --server it also prints what only the cluster
    knows: admission, pool, quota, environment, adapter, storage. Ctrl-C leaves the run running.

    Example: flash train config.toml --set train.steps=300 --set train.lora_rank=16
    """
    if server and not dry_run:
        raise UsageFailure("--server works only with --dry-run", "leave it out to train")
    composed = load_config.load(config, overlays, sets)
    folder = config.resolve().parent
    if dry_run:
        refuse_name(output)
        answers = (
            _ask_cluster(composed, folder, namespace, context) if server else ask_offline(composed)
        )
        print_dry_run(composed, answers, output)
    else:
        _submit(composed, folder, background, output, namespace, context)


# The modules that talk to a cluster are imported late: importing them takes longer than a dry run.


def _ask_cluster(
    composed: "ComposedConfig", folder: Path, namespace: str | None, context: str | None
) -> DryRunAnswers:
    import asyncio

    from flashrun.cli.cluster import preflight

    return asyncio.run(preflight.ask_cluster(composed, [folder], namespace, context))


def _submit(
    composed: "ComposedConfig",
    folder: Path,
    background: bool,
    output: OutputFormat,
    namespace: str | None,
    context: str | None,
) -> None:
    import asyncio

    from flashrun.cli.cluster import submit

    values = submit.find_secret_values(composed.config, [folder])
    submission = submit.Submission(composed, values, background, output)
    asyncio.run(submit.connect_and_submit(submission, namespace, context))
