"""``flash budget``: change how many GPU hours a run may use."""

import asyncio
from typing import Annotated

import typer
from pydantic import ValidationError

from flashrun.api.config import BudgetConfig
from flashrun.api.reasons import TERMINAL
from flashrun.cli.cluster.connection import check_run_name, connect
from flashrun.cli.config.error_sentences import describe_error
from flashrun.cli.options import Context, Namespace, Output, Run
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.plan import budgets


def budget(
    run: Run,
    hours: Annotated[float, typer.Argument(help="GPU hours of the run in all.", metavar="HOURS")],
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Change how many GPU hours a run may use.

    HOURS counts from the beginning of the run. A run that is paused because it has used its budget
    goes on from its newest checkpoint when HOURS is more than that; a running one saves and pauses
    when it has used them.

    Example: flash budget flash-1795370000-3fa9c1d2 20
    """
    try:
        BudgetConfig(gpu_hours=hours)
    except ValidationError as error:
        [detail] = error.errors(include_url=False)
        raise UsageFailure(
            describe_error(detail | {"loc": ("HOURS",)}), "give a number of GPU hours"
        ) from None
    asyncio.run(_budget(check_run_name(run), hours, output, namespace, context))


async def _budget(
    name: str, hours: float, output: OutputFormat, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        phase = (await session.get_run(name)).status.phase
        if phase in TERMINAL:
            raise UsageFailure(
                f"{name} has ended ({phase}) and uses nothing more",
                f"train again what it trained with flash rerun {name}",
            )
        await session.set_budget(name, hours)
        manifest = await session.get_manifest(name)
    terminal.say(f"{name} may use {budgets.hours_text(hours * 3600)} GPU hours in all")
    if output in (OutputFormat.JSON, OutputFormat.YAML):
        terminal.write_data(manifest, output)
    elif output is OutputFormat.NAME:
        terminal.write(name)
