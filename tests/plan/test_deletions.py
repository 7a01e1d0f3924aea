"""What the status of a run says that is being deleted while finalizers hold it."""

from datetime import timedelta

import pytest

from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.plan.deletions import deleted_status, unfinished_deletion
from tests.plan.worlds import NOW, make_run, running

HELD = ("example.com/backup",)


def test_a_deleted_run_is_cancelled_when_its_pods_are_gone_and_names_who_holds_it() -> None:
    run = running().run
    ending = deleted_status(run, HELD, NOW, ended=False)
    ended = deleted_status(run, HELD, NOW, ended=True)

    assert (ending.phase, ended.phase) == (Phase.CANCELLING, Phase.CANCELLED)
    assert ended.completion_time == NOW
    ready = ended.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.DELETED
    assert ready.message == (
        "The run was deleted; its checkpoints are kept. The object stays until other programs "
        "remove their finalizer example.com/backup."
    )


@pytest.mark.parametrize("finalizers", [(), tuple(f"example.com/{n:0200d}" for n in range(99))])
def test_the_sentence_stays_within_bounds(finalizers: tuple[str, ...]) -> None:
    status = unfinished_deletion(
        make_run(), finalizers, Reason.STORAGE_UNAVAILABLE, "no " * 2000, NOW
    )

    assert status.pending is not None
    assert len(status.pending.message) <= 2048
    assert status.pending.message.startswith("The deletion of the run is not finished")


def test_a_run_that_had_ended_keeps_its_status() -> None:
    run = make_run()
    ended = run.replace(status=deleted_status(run, (), NOW, ended=True))
    later = NOW + timedelta(hours=1)

    assert deleted_status(ended, HELD, later, ended=True) == ended.status
    assert unfinished_deletion(ended, HELD, Reason.CLUSTER_REFUSES, "no", later) == ended.status
