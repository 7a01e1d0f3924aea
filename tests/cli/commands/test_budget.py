"""``flash budget``: the GPU hours of a run are changed, and nothing else."""

import pytest

from tests.cli.shell import Served


def test_a_budget_is_changed_in_a_run_that_exists(served: Served) -> None:
    served.push()
    name = served.submit("--set", "budget.gpu_hours=2")
    assert served.get("flashrun", name)["spec"]["budget"] == {"gpuHours": 2}

    done = served.flash("budget", name, "20")
    assert (done.returncode, done.stderr) == (0, f"{name} may use 20 GPU hours in all\n")
    assert served.get("flashrun", name)["spec"]["budget"] == {"gpuHours": 20}


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf", "1000001"])
def test_what_is_not_a_number_of_gpu_hours_is_refused(served: Served, hours: str) -> None:
    done = served.flash("budget", "flash-1-a", "--", hours)
    assert done.returncode == 2
    assert done.stderr.startswith("error: HOURS must be ")
