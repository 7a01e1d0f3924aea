"""The runs that still need what somebody wants to delete."""

import asyncio
from typing import Any

import pytest

from flashrun.cli.cluster.unfinished_runs import full_name, list_unfinished_runs
from flashrun.cluster_errors import Forbidden

Manifests = list[dict[str, Any]]


def run(name: str, phase: str | None) -> dict[str, Any]:
    status = {} if phase is None else {"status": {"phase": phase}}
    return {"metadata": {"namespace": "team-a", "name": name}, **status}


RUNS = [run("new", None), run("trains", "Running"), run("done", "Succeeded"), run("bad", "Failed")]


class Session:
    """Stands in for a connection of a user who may list all namespaces, or only their own."""

    namespace = "team-a"

    def __init__(self, everywhere: bool) -> None:
        self.everywhere, self.cluster = everywhere, self

    async def list(self, kind: str) -> Manifests:
        if not self.everywhere:
            raise Forbidden("flashruns is forbidden")
        return RUNS

    async def list_manifests(self) -> Manifests:
        return RUNS


@pytest.mark.parametrize("everywhere", [True, False])
def test_runs_that_have_ended_need_nothing(
    everywhere: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    session: Any = Session(everywhere)
    found = asyncio.run(list_unfinished_runs(session))
    assert [full_name(run) for run in found] == ["team-a/new", "team-a/trains"]
    assert ("only the runs in namespace team-a" in capsys.readouterr().err) is not everywhere
