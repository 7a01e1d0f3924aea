"""``flash sweep status``: the runs of a sweep, ranked."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from flashrun.cli.commands.sweep import status as command
from flashrun.cli.output.failure import ExitCode
from flashrun.cluster_errors import Unreachable
from tests.cli.golden import golden_run
from tests.cli.shell import REFERENCE, Served

SWEEP = 'config = "config.toml"\nlimit = 3\n[grid]\ntrain.epochs = [1, 2, 3]\n'


def report(served: Served, name: str, **status: Any) -> None:
    body = json.dumps({"status": status})
    served.kubectl("patch", "flashrun", name, "--subresource=status", "--type=merge", "-p", body)


def scored(score: str) -> dict[str, Any]:
    point = {"step": 10, "score": score}
    return {"evaluation": {"metric": "score", "last": point, "best": point}}


def test_the_runs_of_a_sweep_are_ranked_by_their_evaluations(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", REFERENCE)
    served.flash.write("epochs.toml", SWEEP)
    one, two, three = served.flash("sweep", "epochs.toml", "-o", "name").stdout.split()
    alone = served.submit()
    report(served, one, phase="Failed", failure={"reason": "DiskFull", "message": "Full."})
    report(served, two, phase="Succeeded", **scored("0.25"))
    report(served, three, phase="Succeeded", **scored("0.75"))

    done = served.flash("sweep", "status", "epochs")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [three, two, one]
    assert [row[1] for row in rows] == ["Succeeded", "Succeeded", "Failed"]
    assert [row[3] for row in rows] == ["0.75", "0.25", ""]
    assert [row[4] for row in rows] == ["3", "2", "1"]
    assert rows[2][-1] == "DiskFull"
    assert alone not in done.stdout

    ended = served.flash("sweep", "status", "epochs", "--follow", "-o", "json")
    assert ended.returncode == ExitCode.RUN_FAILED
    assert f"failed: {one}" in ended.stderr
    assert [item["rank"] for item in json.loads(ended.stdout)] == [1, 2, 3]
    listed = served.flash("sweep", "status").stdout.strip().split("\t")
    assert listed == ["epochs", "3", "2 Succeeded, 1 Failed", three, "0.75"]


def test_a_run_that_is_paused_without_a_budget_is_not_waited_for(served: Served) -> None:
    served.push()
    served.flash.write("epochs.toml", SWEEP)
    one, two, three = served.flash("sweep", "epochs.toml", "-o", "name").stdout.split()
    for name in (one, two):
        report(served, name, phase="Succeeded")
    paused = {"reason": "BudgetUsedUp", "message": "It has used 2 of 2 GPU hours."}
    report(served, three, phase="Suspended", observedGeneration=1, pending=paused)

    done = served.flash("sweep", "status", "epochs", "--follow")

    assert done.returncode == 0
    assert f"paused, with no budget left: {three}; flash budget RUN HOURS" in done.stderr


async def test_following_goes_on_when_the_api_server_is_away_for_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    active, ended = golden_run("running"), golden_run("succeeded")
    looks = iter([Unreachable("the API server does not answer")] * 2 + [[ended]])

    async def find(*_: Any) -> Any:
        if isinstance(look := next(looks), Exception):
            raise look
        return look

    monkeypatch.setattr(command, "_find_runs", find)
    monkeypatch.setattr(command, "LOOK_SECONDS", 0)

    assert await command._follow(SimpleNamespace(), "ranks", [active]) == [ended]  # type: ignore[arg-type]
    assert capsys.readouterr().err.splitlines() == [
        "ranks: 1 Running",
        "the API server does not answer; trying again, the runs are not affected",
    ]


def test_a_sweep_that_does_not_exist_is_not_found(served: Served) -> None:
    done = served.flash("sweep", "status", "absent")
    assert done.returncode == ExitCode.NOT_FOUND
    assert "sweep absent has no runs" in done.stderr
    assert "no sweeps in this namespace yet" in served.flash("sweep", "status").stderr
