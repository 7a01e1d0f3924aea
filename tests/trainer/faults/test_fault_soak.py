"""A short run through faults of every kind: it succeeds, learns, and loses no whole step.

`python -m bench.fault_soak` does the same for 200 steps, and compares what is learned.
"""

from dataclasses import replace

import pytest

from tests.trainer.fault_plan import ENDS, make_plan
from tests.trainer.faults.soak import run_through
from tests.trainer.faults.test_kills import assert_the_same_end
from tests.trainer.pods import Workshop, fifths

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

IMPATIENT = """
from flashrun_trainer.data import retries
from flashrun_trainer.records import checkpoint_uploads

retries._PAUSES_SECONDS = (0.05,)
checkpoint_uploads._RETRY_SECONDS = 0.1
"""
STEPS = 16


def test_a_run_through_faults_of_every_kind_ends_like_one_that_was_never_interrupted(
    workshop: Workshop,
):
    # Storage is back before the pod is asked to stop: it would wait for it.
    plan = replace(make_plan(1, STEPS), failing_share=0.2, hanging_share=0.3, outage=(9, 10))
    train = {"head": IMPATIENT, "learning_rate": 5e-3, "max_tokens": 8, "save_every": 3}
    soak = run_through(workshop, plan, 0.5, **train)
    assert len(soak.ends) >= len(ENDS)
    assert soak.refused > 0
    kinds = ("raised", "invalid", "reported", "timed_out")
    failed = {kind: sum(soak.pod.values(f"reward_failed/{kind}")) for kind in kinds}
    assert min(failed.values()) > 0
    first, last = fifths(soak.pod.values("reward"))
    assert last > first + 0.5
    # The judge fails in both runs alike.
    uninterrupted = run_through(workshop, replace(plan, ends={}, outage=(0, -1)), 0.5, **train)
    assert uninterrupted.ends == []
    assert_the_same_end(soak.pod, uninterrupted.pod, "reward")
