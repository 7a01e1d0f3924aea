"""``flash sweep status``: the runs of a sweep, ranked by their evaluations."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from flashrun.api.reasons import TERMINAL, Phase
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster.connection import ClusterSession, connect, listed_run
from flashrun.cli.cluster.run_polling import is_over
from flashrun.cli.config.run_spec import varied_settings
from flashrun.cli.config.toml_text import toml_value
from flashrun.cli.options import Context, Namespace, Output
from flashrun.cli.output import formatting, sweep_ranking, terminal
from flashrun.cli.output.failure import ExitCode, NotFoundFailure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Cell, Table
from flashrun.cluster_errors import ClusterError

LOOK_SECONDS: Final = 3.0
"""Time between two looks at a sweep that is followed."""


def status(
    sweep: Annotated[
        str | None,
        typer.Argument(help="Name of the sweep; without it, all are listed.", metavar="[SWEEP]"),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait until none of its runs goes on.")
    ] = False,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Rank the runs of a sweep by their evaluations.

    The best checkpoint on held-out examples counts; runs without one come last. Columns show the
    settings in which the runs differ, and why a run waits or ended. --follow waits until each run
    has ended or used up its budget; the exit code is 1 when one failed.

    Example: flash sweep status ranks --follow
    """
    asyncio.run(_status(sweep, follow, output, namespace, context))


async def _status(
    sweep: str | None,
    follow: bool,
    output: OutputFormat,
    namespace: str | None,
    context: str | None,
) -> None:
    async with connect(context, namespace) as session:
        if sweep is None:
            _print_sweeps(await _list_sweeps(session), output)
            return
        runs = await _find_runs(session, sweep)
        if follow:
            runs = await _follow(session, sweep, runs)
    _print_ranking(runs, output)
    failed = [run.name for run in runs if run.status.phase is Phase.FAILED]
    if paused := [run.name for run in runs if follow and run.status.phase not in TERMINAL]:
        terminal.say(
            f"paused, with no budget left: {', '.join(paused)}; flash budget RUN HOURS lets one "
            "go on"
        )
    if follow and failed:
        terminal.say(f"failed: {', '.join(failed)}; flash status RUN has the reason")
        raise typer.Exit(ExitCode.RUN_FAILED)


async def _follow(session: ClusterSession, sweep: str, runs: list[FlashRun]) -> list[FlashRun]:
    """Return the runs when none goes on; until then, say what has become of them."""
    before, lost = "", False
    while not all(map(is_over, runs)):
        if (counts := sweep_ranking.counts_text(runs)) != before:
            terminal.say(f"{sweep}: {counts}")
            before = counts
        await asyncio.sleep(LOOK_SECONDS)
        try:
            runs, lost = await _find_runs(session, sweep), False
        except ClusterError as error:
            if not error.temporary:
                raise
            if not lost:
                terminal.say(f"{error}; trying again, the runs are not affected")
            lost = True
    return runs


async def _list_sweeps(session: ClusterSession) -> dict[str, list[FlashRun]]:
    sweeps: dict[str, list[FlashRun]] = defaultdict(list)
    for run in map(listed_run, await session.list_manifests()):
        if run.spec.sweep is not None:
            sweeps[run.spec.sweep.name].append(run)
    return sweeps


async def _find_runs(session: ClusterSession, sweep: str) -> list[FlashRun]:
    runs = (await _list_sweeps(session)).get(sweep)
    if not runs:
        raise NotFoundFailure(
            f"sweep {sweep} has no runs in namespace {session.namespace}",
            "flash sweep status lists them",
        )
    return formatting.best_first(runs)


def _print_ranking(runs: Sequence[FlashRun], output: OutputFormat) -> None:
    settings = varied_settings(runs)
    texts = [{key: toml_value(value) for key, value in own.items()} for own in settings]
    terminal.write_answer(
        output,
        data=sweep_ranking.ranking_data(runs, settings),
        names=[run.name for run in runs],
        table=sweep_ranking.ranking_table(runs, texts),
    )


def _print_sweeps(sweeps: dict[str, list[FlashRun]], output: OutputFormat) -> None:
    if not sweeps and output is OutputFormat.TABLE:
        terminal.say("no sweeps in this namespace yet; flash sweep FILE starts one")
        return
    best = {name: formatting.best_first(runs)[0] for name, runs in sweeps.items()}
    terminal.write_answer(
        output,
        data=[
            {"name": name, "runs": len(runs), "phases": sweep_ranking.counts_text(runs)}
            for name, runs in sweeps.items()
        ],
        names=sweeps,
        table=Table(
            ("SWEEP", "RUNS", "PHASES", "BEST", "SCORE"),
            tuple(
                (
                    Cell(name),
                    Cell(str(len(runs))),
                    Cell(sweep_ranking.counts_text(runs)),
                    Cell(best[name].name),
                    Cell(formatting.best_score(best[name].status.evaluation)),
                )
                for name, runs in sweeps.items()
            ),
        ),
    )
