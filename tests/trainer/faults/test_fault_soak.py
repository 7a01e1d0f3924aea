"""A short run through faults of every kind: it succeeds, learns, and loses no whole step.

`python -m bench.fault_soak` does the same for 200 steps, and compares what is learned.
"""

from concurrent.futures import ThreadPoolExecutor
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
SEED, STEPS = 9, 10
"""A plan in which the SIGKILL comes after a checkpoint, so the next attempt resumes from it."""
TRAIN = {"head": IMPATIENT, "learning_rate": 1e-2, "max_tokens": 8, "save_every": 3}


def test_a_run_through_faults_of_every_kind_ends_like_one_that_was_never_interrupted(
    workshop: Workshop,
):
    # Calls hang while answers still differ, and storage is back before a pod would wait for it.
    changes = {"failing_share": 0.2, "hanging": (3,), "hanging_share": 0.3, "outage": (6, 7)}
    plan = replace(make_plan(SEED, STEPS), **changes)
    # The judge fails in both runs alike.
    plans = (plan, replace(plan, ends={}, outage=(0, -1)))
    with ThreadPoolExecutor(len(plans)) as pool:
        soak, uninterrupted = pool.map(lambda own: run_through(workshop, own, 0.5, **TRAIN), plans)
    assert len(soak.ends) >= len(ENDS)
    assert {"stopped, saved", "killed", "the judge ended the process"} <= set(soak.ends)
    assert soak.refused > 0
    kinds = ("raised", "invalid", "reported", "timed_out")
    failed = {kind: sum(soak.pod.values(f"reward_failed/{kind}")) for kind in kinds}
    assert min(failed.values()) > 0
    first, last = fifths(soak.pod.values("reward"))
    assert last > first + 0.5
    assert uninterrupted.ends == []
    assert_the_same_end(soak.pod, uninterrupted.pod, "reward")
