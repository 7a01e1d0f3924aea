"""``flash rollouts``: what the model answered, and how it was scored."""

import asyncio
import json
from typing import Annotated

import typer

from flashrun.cli.cluster import deleted_runs
from flashrun.cli.cluster.connection import check_run_name, connect
from flashrun.cli.cluster.stored_rollouts import StepRollouts, order_rollouts, read_rollouts
from flashrun.cli.options import Context, Namespace, Run
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure
from flashrun.cli.output.rollout_text import rollout_text


def rollouts(
    run: Run,
    step: Annotated[
        int | None, typer.Option("--step", min=0, help="Step of the run; by default the newest.")
    ] = None,
    worst: Annotated[
        int | None, typer.Option("--worst", min=1, help="Only the K with the lowest scores.")
    ] = None,
    best: Annotated[
        int | None, typer.Option("--best", min=1, help="Only the K with the highest scores.")
    ] = None,
    metric: Annotated[
        str,
        typer.Option("--metric", help="What they are ordered by: a metric of the environment."),
    ] = "score",
    evaluated: Annotated[
        bool, typer.Option("--eval", help="The answers of the evaluation after the step.")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show what the model answered in a step, and its scores.

    A terminal gets text, in a pager when it is long; a pipe gets the rows as JSON Lines. Rollouts
    are stored by GRPO; --eval shows the answers on held-out examples, in SFT too.

    Example: flash rollouts flash-1795370000-3fa9c1d2 --worst 5
    """
    if worst is not None and best is not None:
        raise UsageFailure("--worst and --best exclude each other", "use one of them")
    found = asyncio.run(_read(check_run_name(run), step, evaluated, namespace, context))
    rows = order_rollouts(found, metric, worst=worst, best=best)
    if terminal.is_terminal():
        texts = (rollout_text(row, place, len(rows)) for place, row in enumerate(rows, 1))
        terminal.write_paged("\n".join(texts))
        return
    for row in rows:
        # Half of a surrogate pair, which JSON allows, cannot be encoded; its escape can.
        terminal.write(
            json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace").decode()
        )


async def _read(
    name: str, step: int | None, evaluated: bool, namespace: str | None, context: str | None
) -> StepRollouts:
    async with connect(context, namespace) as session:
        run = await deleted_runs.find_run(session, name)
        return await read_rollouts(session, run, step, evaluated=evaluated)
