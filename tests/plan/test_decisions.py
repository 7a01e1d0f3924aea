"""Decisions that several policies reach: a run fails, or it waits."""

from datetime import timedelta

import pytest

from flashrun.api import names
from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.api.resource import ConditionStatus, FailureStatus
from flashrun.plan.decisions import RECHECK_SECONDS, fail_run, wait
from tests.plan import worlds
from tests.plan.worlds import running

FAILURE = FailureStatus(reason=Reason.DATA_INVALID, message="Row 7 is empty.", hint="Remove it.")


@pytest.mark.parametrize("delete_jobs", [False, True])
def test_a_failed_run_has_message_and_hint_in_one_condition(delete_jobs: bool) -> None:
    decision = fail_run(running().context(), FAILURE, delete_jobs=delete_jobs)

    status = decision.status
    assert (status.phase, status.failure) == (Phase.FAILED, FAILURE)
    assert status.completion_time == worlds.NOW
    stalled = status.condition(ConditionType.STALLED)
    assert stalled is not None
    assert (stalled.status, stalled.message) == (
        ConditionStatus.TRUE,
        "Row 7 is empty. Remove it.",
    )
    job = names.job_name(worlds.NAME, worlds.UID, 0)
    assert [item.name for item in decision.delete] == ([job] if delete_jobs else [])


def test_a_waiting_run_is_looked_at_again_soon() -> None:
    context = running().later(minutes=1).context()
    decision = wait(context, Reason.SECRET_MISSING, "x" * 5000, ConditionType.SECRETS_READY)

    status = decision.status
    assert status.phase is Phase.PENDING
    assert status.pending is not None
    assert (status.pending.reason, len(status.pending.message)) == (Reason.SECRET_MISSING, 2048)
    unmet = status.condition(ConditionType.SECRETS_READY)
    assert unmet is not None
    assert unmet.status is ConditionStatus.FALSE
    assert unmet.last_transition_time == worlds.NOW + timedelta(minutes=1)
    assert decision.requeue_seconds == RECHECK_SECONDS
