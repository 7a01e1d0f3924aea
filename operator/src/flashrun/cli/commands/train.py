"""``flash train``: check a config here, submit it, follow the run."""

from typing import TYPE_CHECKING, Annotated

import typer

from flashrun.cli.config import load_config, platform_cache, show_config
from flashrun.cli.options import (
    Background,
    Config,
    Context,
    DryRun,
    Form,
    Namespace,
    Output,
    Overlays,
    Sets,
)
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure

if TYPE_CHECKING:
    from flashrun.cli.cluster.submit import Submission
    from flashrun.cli.config.compose import Composed


def train(
    config: Config,
    overlays: Overlays = None,
    sets: Sets = None,
    dry_run: DryRun = False,
    server: Annotated[
        bool, typer.Option("--server", help="With --dry-run: ask the cluster, too.")
    ] = False,
    background: Background = False,
    output: Form = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Train the adapter that a config describes.

    The config is composed of CONFIG, each --config file and each --set, in this order, and checked
    as a whole. --dry-run needs no cluster; with --server it also tells what only the cluster knows:
    admission, pool, quota, environment, adapter, storage. Ctrl-C leaves the run running.

    Example: flash train config.toml --set train.steps=300 --set train.lora_rank=16
    """
    if server and not dry_run:
        raise UsageFailure("--server goes with --dry-run", "leave it out to train")
    composed = load_config.read(config, overlays, sets)
    if dry_run:
        refuse_name(output)
    if dry_run and not server:
        print_resolved(composed, output)
        return
    # Imported when it is needed: what follows a run takes longer to load than a dry run.
    import asyncio

    from flashrun.cli.cluster import preflight, submit

    if server:
        beside = [config.resolve().parent]
        asyncio.run(preflight.preflight(composed, beside, output, namespace, context))
        return
    values = submit.secret_values(composed.config, [config.resolve().parent])
    submission = submit.Submission(composed, values, background, output)
    asyncio.run(_train(submission, namespace, context))


async def _train(submission: "Submission", namespace: str | None, context: str | None) -> None:
    from flashrun.cli.cluster import connection, submit

    async with connection.connect(context, namespace) as connected:
        await submit.start(connected, submission)


def refuse_name(output: Output) -> None:
    """Refuse ``-o name`` of a dry run, which makes nothing that has one."""
    if output is Output.NAME:
        raise UsageFailure("a dry run makes no run, so it has no name to print", "use -o json")


def print_resolved(composed: "Composed", output: Output) -> None:
    """Print a config with every value filled in; raises ``ConfigError`` when it cannot be used."""
    for warning in load_config.checked(composed, platform_cache.platform()):
        terminal.say(f"note: {warning}")
    found = show_config.settings(composed)
    if output in (Output.JSON, Output.YAML):
        terminal.write_data(show_config.answer(found), output)
    else:
        terminal.write(show_config.resolved_toml(found) + show_config.LEFT_TO_THE_PLATFORM)
