"""``flash sweep start``, or ``flash sweep FILE``: submit the runs of a sweep."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from flashrun.api.sweep import MEMBERS_LIMIT
from flashrun.cli.config import load_config, platform_cache, sweep_file
from flashrun.cli.config.planned_sweep import print_planned
from flashrun.cli.options import Context, Namespace, Output, Sets
from flashrun.cli.output.output_format import OutputFormat

SweepPath = Annotated[
    Path, typer.Argument(help="TOML file that describes the sweep.", metavar="FILE")
]


def start(
    file: SweepPath,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the sweep; by default the file's name or that in it."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="How many runs may run at once.", min=1, max=MEMBERS_LIMIT),
    ] = None,
    stop_worse: Annotated[
        bool,
        typer.Option("--stop-worse", help="End the worse half of the runs at some evaluations."),
    ] = False,
    sets: Sets = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and list the runs; submit nothing.")
    ] = False,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Submit the runs of a sweep, so many at once.

    FILE names a base config and has a grid or a list of the values in which the runs differ. All
    runs are submitted at once; the operator lets so many of them run at a time as the limit says,
    whether or not a terminal is open. Runs have the same names each time: after an interruption,
    the same command submits those that are missing. A run that fails does not stop the others.

    Example: flash sweep start sweep.toml --limit 2 --stop-worse
    """
    composed = sweep_file.read_sweep(
        file, sets or (), name=name, limit=limit, stop_worse=stop_worse
    )
    if dry_run:
        platform = platform_cache.load_platform()
        for run in composed.runs:
            load_config.check_with_platform(run.composed, platform)
        print_planned(composed, output)
        return
    # Imported late: importing what talks to a cluster takes longer than an offline dry run.
    from flashrun.cli.cluster import sweep_submit

    folders = [file.resolve().parent]
    asyncio.run(sweep_submit.submit_sweep(composed, folders, output, namespace, context))
