"""Complete names of runs in a shell; a slow or missing cluster completes nothing."""

import asyncio
from typing import Final

from flashrun.api import names
from flashrun.cli.cluster.connection import connect

TIMEOUT_SECONDS: Final = 3.0


def complete_run_name(context: str | None, namespace: str | None, incomplete: str) -> list[str]:
    """Return the names of the runs that begin with ``incomplete``, newest first."""
    names_of_runs = _list_run_names(context, namespace)
    try:
        listed = asyncio.run(asyncio.wait_for(names_of_runs, TIMEOUT_SECONDS))
    except Exception:  # any message would be printed into the line that the user is typing
        return []
    return [name for name in listed if name.startswith(incomplete)]


async def _list_run_names(context: str | None, namespace: str | None) -> list[str]:
    async with connect(context, namespace) as session:
        runs = await session.cluster.list(names.KIND, session.namespace)
    runs.sort(key=lambda run: str(run["metadata"].get("creationTimestamp")), reverse=True)
    return [str(run["metadata"]["name"]) for run in runs]
