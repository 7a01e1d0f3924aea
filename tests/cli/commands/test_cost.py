"""``flash cost``: the GPU hours of runs, also of runs that were deleted."""

import json

from flashrun.api import names
from flashrun.cli.output.failure import ExitCode
from tests.cli.gpu_usage import answer, keep_copy, used
from tests.cli.shell import REFERENCE, Served


def test_gpu_hours_of_deleted_ended_and_running_runs_are_added_up(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", REFERENCE)
    gone, ended, active = served.submit(), served.submit(), served.submit()
    user = served.get("flashrun", active)["metadata"]["annotations"][names.USER_ANNOTATION]
    assert user
    keep_copy(served, gone, used(4, ago=100), user="somebody")
    served.report(ended, **used(1, ago=3))
    running = used(1, ago=2, phase="Running", completionTime=None, gpuSeconds=0)
    running["attempts"][0]["end"] = None
    served.report(active, **running)

    by_run = {row["run"]: row["gpu_hours"] for row in answer(served)}
    assert by_run.keys() == {gone, ended, active}
    assert abs(by_run[active] - 2) < 0.02
    assert (by_run[gone], by_run[ended]) == (4, 1)
    by_user = {row["user"]: row["gpu_hours"] for row in answer(served, "--by", "user")}
    assert by_user["somebody"] == 4
    assert abs(by_user[user] - 3) < 0.02
    [model] = answer(served, "--by", "model")
    assert model["model"] == "Qwen/Qwen3.5-4B"
    assert abs(model["gpu_hours"] - 7) < 0.02
    namespaces = {row["namespace"]: row for row in answer(served, "--by", "namespace")}
    assert abs(namespaces[served.namespace]["gpu_hours"] - 7) < 0.02
    recent = {row["run"]: row["gpu_hours"] for row in answer(served, "--since", "1d")}
    assert recent.keys() == {ended, active}
    rows = [line.split("\t") for line in served.flash("cost").stdout.splitlines()]
    assert rows[0][:2] == [gone, "4.00"]


def test_a_pool_that_the_platform_no_longer_has_has_no_price(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", REFERENCE)
    first, second = served.submit(), served.submit()
    keep_copy(served, first, used(2, ago=10, pool="gone"))
    shown = served.get("configmap", names.PUBLIC_CONFIG_MAP)["data"]["platform.json"]
    pool = json.loads(shown)["pools"][0]
    keep_copy(served, second, used(2, ago=10, pool=pool["name"]))
    cost = {row["run"]: row["cost"] for row in answer(served)}
    assert cost == {first: None, second: 2 * pool.get("cost", 1)}


def test_nothing_was_used_or_the_time_cannot_be_read(served: Served) -> None:
    assert "no run has used a GPU" in served.flash("cost").stderr
    done = served.flash("cost", "--since", "yesterday")
    assert done.returncode == ExitCode.USAGE
    assert "--since yesterday is not a time" in done.stderr
