"""A run as it changes until it has ended."""

import asyncio
from typing import Any

import pytest
import yaml

from flashrun.api.resource import FlashRun
from flashrun.cli.cluster import run_polling
from flashrun.cluster_errors import ClusterError, Forbidden, Unreachable
from tests.cli.golden import RUNS, golden_run

GOLDEN = RUNS / "evaluated-sft" / "flashrun.yaml"


class RunThatEnds:
    """A session whose run has succeeded; its pod ends after a few more readings."""

    def __init__(self, readings: int) -> None:
        self.readings = readings

    async def get_manifest(self, _: str) -> dict[str, Any]:
        self.readings -= 1
        attempt = {"number": 1, "pod": "p", "start": "2026-11-22T12:00:00Z"}
        end = {} if self.readings > 0 else {"end": "2026-11-22T12:01:00Z"}
        status = {"phase": "Succeeded", "attempts": [attempt | end]}
        return {**yaml.safe_load(GOLDEN.read_text()), "status": status}


@pytest.mark.parametrize(("readings", "seconds", "ended"), [(3, 60, True), (99, 0.2, False)])
def test_the_summary_has_the_end_of_the_last_attempt_if_it_comes_soon(
    monkeypatch: pytest.MonkeyPatch, readings: int, seconds: float, ended: bool
) -> None:
    monkeypatch.setattr(run_polling, "HURRIED_SECONDS", 0.1)
    session: Any = RunThatEnds(readings)
    manifest = asyncio.run(run_polling.settled_manifest(session, "run", seconds))

    assert ("end" in manifest["status"]["attempts"][0]) is ended


class RunBehindAnOutage:
    """A session that has an error or a run for each reading."""

    def __init__(self, *answers: FlashRun | ClusterError) -> None:
        self.answers = [*answers]

    async def get_run(self, _: str) -> FlashRun:
        answer = self.answers.pop(0)
        if isinstance(answer, ClusterError):
            raise answer
        return answer


def poll(
    *answers: FlashRun | ClusterError, expects_change: bool = False
) -> tuple[list[str], list[str]]:
    """Return the phases of a run as it was read, and the notices."""
    phases: list[str] = []
    notices: list[str] = []

    async def read() -> None:
        session: Any = RunBehindAnOutage(*answers)
        async for run in run_polling.poll_run(
            session, golden_run("running"), notices.append, lambda: expects_change
        ):
            phases.append(run.status.phase)

    asyncio.run(read())
    return phases, notices


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_polling, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(run_polling, "HURRIED_SECONDS", 0.01)


def test_an_outage_is_noticed_once_and_polling_goes_on() -> None:
    away = Unreachable("the API server does not answer")
    phases, notices = poll(away, away, golden_run("running"), golden_run("succeeded"))

    assert phases == ["Running"] * 4 + ["Succeeded"]  # an outage changes nothing of what is known
    assert notices == [f"{away}; trying again, the run is not affected"]


def test_an_error_that_stays_ends_polling() -> None:
    with pytest.raises(Forbidden):
        poll(Forbidden("you may not read runs"))


def test_a_run_is_read_at_once_while_a_change_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_polling, "POLL_SECONDS", 3600)

    assert poll(golden_run("succeeded"), expects_change=True)[0] == ["Running", "Succeeded"]
