"""Words that a shell completes: what cannot be looked up at once is not offered."""

import asyncio
from typing import Final

from flashrun.api import names
from flashrun.cli.cluster.connection import connect

PATIENCE_SECONDS: Final = 3.0


def runs(context: str | None, namespace: str | None, beginning: str) -> list[str]:
    """Return the names of the runs that begin so, newest first; none without a cluster."""
    try:
        return asyncio.run(asyncio.wait_for(_runs(context, namespace, beginning), PATIENCE_SECONDS))
    except Exception:  # whatever it is, a sentence in the middle of a typed line helps nobody
        return []


async def _runs(context: str | None, namespace: str | None, beginning: str) -> list[str]:
    async with connect(context, namespace) as session:
        found = await session.cluster.list(names.KIND, session.namespace)
    found.sort(key=lambda run: str(run["metadata"].get("creationTimestamp")), reverse=True)
    listed = (str(run["metadata"]["name"]) for run in found)
    return [name for name in listed if name.startswith(beginning)]
