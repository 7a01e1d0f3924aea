"""``flash gpus``: the pools of GPUs, and how many are free."""

import json
from typing import Any

from flashrun.api.public import PublicPool
from flashrun.cli.commands import gpus
from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import Served


def test_gpus_that_were_not_counted_are_a_question_mark() -> None:
    counted = PublicPool(name="h100", vram=80, gpus_per_node=8, total=16, free=0, cost=4)
    rows = gpus.pools_table((counted, PublicPool(name="l40s", vram=48))).rows

    assert [[cell.text for cell in row] for row in rows] == [
        ["h100", "80", "8", "16", "0", "4"],
        ["l40s", "48", "1", "?", "?", "1"],
    ]


def count(served: Served, **counted: Any) -> None:
    """Write how many GPUs there are, as the operator would."""
    told = served.get("configmap", "flashrun-public")["data"]["platform.json"]
    platform = json.loads(told)
    platform["pools"][0] |= counted
    data = {"data": {"platform.json": json.dumps(platform)}}
    served.kubectl("patch", "configmap", "flashrun-public", "-p", json.dumps(data))


def test_gpus_shows_the_pools_and_what_is_free(served: Served) -> None:
    count(served, total=8, free=3)

    done = served.flash("gpus")

    assert (done.stdout, done.stderr) == ("h100\t80\t1\t8\t3\t1\n", "")
    assert served.flash("gpus", "-o", "name").stdout == "h100\n"
    [pool] = json.loads(served.flash("gpus", "-o", "json").stdout)
    assert (pool["name"], pool["total"], pool["free"]) == ("h100", 8, 3)


def test_gpus_that_are_not_counted_are_a_note(served: Served) -> None:
    done = served.flash("gpus")

    assert done.stdout == "h100\t80\t1\t?\t?\t1\n"
    assert "the GPUs of h100 are not counted" in done.stderr


def test_pools_are_unknown_without_the_config_map_of_the_platform(served: Served) -> None:
    done = served.flash("gpus", "-n", "default")

    assert done.returncode == ExitCode.RUN_FAILED
    assert "flashrun-public" in done.stderr
    assert "choose one with -n" in done.stderr
