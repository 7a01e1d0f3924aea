"""The runs that have not ended: what they use must not be deleted."""

from typing import Any

from flashrun.api import names
from flashrun.api.reasons import TERMINAL
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.output import terminal
from flashrun.cluster_errors import Forbidden


async def list_unfinished_runs(session: ClusterSession) -> list[dict[str, Any]]:
    """Return the runs that have not ended, of all namespaces that the user may list."""
    try:
        visible = await session.cluster.list(names.KIND)
    except Forbidden:
        visible = await session.list_manifests()
        terminal.say(f"note: only the runs in namespace {session.namespace} can be seen from here")
    return [run for run in visible if (run.get("status") or {}).get("phase") not in TERMINAL]


def full_name(run: dict[str, Any]) -> str:
    """Return a run's namespace and name."""
    return f"{run['metadata']['namespace']}/{run['metadata']['name']}"
