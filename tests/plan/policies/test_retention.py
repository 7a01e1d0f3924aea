"""Retention: a finished run keeps its status, and its leftovers go."""

from dataclasses import replace
from datetime import timedelta

from flashrun.api.reasons import Phase
from flashrun.plan.types import StorageView
from tests.plan import worlds
from tests.plan.worlds import ADAPTER, make_pod, running


def test_a_finished_run_stays_finished_when_its_job_goes_away() -> None:
    done = worlds.finished(result=worlds.result(), adapter=ADAPTER).settled()
    swept = done.seeing(jobs=(), pods=(), config_map=None, has_secrets=False)

    decision = swept.decide()

    assert decision.status.phase is Phase.SUCCEEDED
    assert decision.apply == ()
    assert decision.secrets is None


def test_the_last_pod_of_a_finished_run_still_counts() -> None:
    """As an earlier version left it, which did not wait for pods."""
    done = running(result=worlds.result(), adapter=ADAPTER)
    status = done.run.status.model_copy(update={"phase": Phase.SUCCEEDED})
    done = replace(done, run=done.run.model_copy(update={"status": status}))
    ended = done.seeing(
        pods=(make_pod(exit_code=0, age=timedelta(minutes=2)),), storage=StorageView()
    ).settled()

    assert done.run.status.gpu_seconds == 0
    assert ended.run.status.gpu_seconds == 120
    assert ended.run.status.attempts[0].end == worlds.NOW
    assert ended.run.status.phase is Phase.SUCCEEDED


def test_a_jobs_time_to_live_starts_only_after_the_outcome_is_written() -> None:
    finishing = worlds.finished(result=worlds.result(), adapter=ADAPTER)
    first = finishing.decide()
    second = finishing.act(first).decide()

    assert first.patch == ()
    assert second.patch[0].body == {"spec": {"ttlSecondsAfterFinished": 3600}}
    assert second.delete_keys == ("live/0b5e-uid.json",)


def test_a_job_of_a_finished_run_that_still_has_pods_is_deleted() -> None:
    world = running(result=worlds.result(), adapter=ADAPTER)
    status = world.run.status.model_copy(update={"phase": Phase.FAILED})
    failed = replace(world, run=world.run.model_copy(update={"status": status}))
    [job] = failed.observed.jobs

    assert [item.name for item in failed.decide().delete] == [job["metadata"]["name"]]
    assert failed.seeing(pods=(make_pod(exit_code=0),)).decide().delete == ()


def test_a_job_that_would_start_another_pod_is_deleted_when_its_controller_had_time() -> None:
    """A sidecar failed the pod of a trainer that succeeded; the Job would try again."""
    world = worlds.finished(result=worlds.result(), adapter=ADAPTER).settled()
    pod = make_pod(exit_code=0)
    pod["status"]["phase"] = "Failed"
    failed = world.seeing(pods=(pod,))
    [job] = failed.observed.jobs
    early, late = failed.decide(), failed.later(seconds=6).decide()

    assert (early.delete, early.requeue_seconds) == ((), 5.0)
    assert [item.name for item in late.delete] == [job["metadata"]["name"]]
    assert failed.seeing(jobs=(worlds.failed_job(job),)).later(seconds=6).decide().delete == ()


def test_the_credentials_of_a_run_are_not_renewed_when_it_has_ended_or_is_ending() -> None:
    """They end with it: what they allow is over when they expire."""
    ended = worlds.finished(result=worlds.result(), adapter=ADAPTER).settled()
    ending = (
        running().switched(cancel=True),
        running().switched(suspend=True),
        running(result=worlds.result(), adapter=ADAPTER),
    )
    for world in (ended, ended.seeing(has_access=False), *ending):
        assert world.later(hours=7).decide().access is None
    assert running().later(hours=7).decide().access is not None
