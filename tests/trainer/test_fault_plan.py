"""A plan of faults depends on its seed alone, and has every kind of them."""

import json
import subprocess
import sys

import pytest

from tests.trainer.fault_plan import ENDS, make_plan, no_faults
from tests.trainer.pods import ROOT


def test_a_plan_is_the_same_in_every_process():
    program = (
        "import json; from tests.trainer.fault_plan import make_plan; "
        "print(json.dumps([make_plan(seed, 200).params() for seed in range(5)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    plans = [make_plan(seed, 200).params() for seed in range(5)]
    assert json.loads(done.stdout) == plans
    assert len({json.dumps(plan) for plan in plans}) == 5


@pytest.mark.parametrize("steps", [24, 200])
@pytest.mark.parametrize("seed", range(10))
def test_every_plan_has_every_kind_of_fault_within_its_steps(seed: int, steps: int):
    plan = make_plan(seed, steps)
    assert sorted(plan.ends.values()) == sorted(ENDS)
    assert all([plan.away, plan.unreadable, plan.hanging, plan.killed_workers])
    faulty = {*plan.ends, *plan.away, *plan.unreadable, *plan.hanging, *plan.killed_workers}
    assert min(faulty) >= 2
    assert max(faulty) < steps
    begin, end = plan.outage
    assert 2 <= begin < end <= steps


def test_a_plan_without_faults_has_none():
    plan = no_faults(1, 200)
    assert not any([plan.ends, plan.away, plan.unreadable, plan.hanging, plan.killed_workers])
    assert (plan.failing_share, plan.hanging_share) == (0.0, 0.0)
