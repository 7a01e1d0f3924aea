"""``flash save``: ask a running run for a checkpoint now."""

import asyncio
import time

from flashrun.cli import terminal
from flashrun.cli.failure import UsageFailure
from flashrun.cli.options import Context, Namespace, Run
from flashrun.cli.session import connect, run_name
from flashrun.spec.run import TERMINAL


def save(run: Run, namespace: Namespace = None, context: Context = None) -> None:
    """Ask a run for a checkpoint at its next step.

    Example: flash save flash-1795370000-3fa9c1d2
    """
    asyncio.run(_save(run_name(run), namespace, context))


async def _save(name: str, namespace: str | None, context: str | None) -> None:
    async with connect(context, namespace) as session:
        found = await session.run(name)
        if found.status.phase in TERMINAL:
            raise UsageFailure(
                f"{name} has ended ({found.status.phase}) and saves nothing more",
                f"flash checkpoints {name} lists what it saved",
            )
        await session.patch_control(name, {"saveRequest": str(int(time.time()))})
    terminal.say(f"asked {name} for a checkpoint; flash checkpoints {name} lists it when it is up")
