"""GPU time of attempts and runs."""

from datetime import UTC, datetime, timedelta

from flashrun.api.resource import AttemptStatus, FlashRunStatus, ResolvedStatus
from flashrun.plan.gpu_time import (
    attempt_seconds,
    gpu_time,
    newly_ended_seconds,
    seconds_by_pool,
    used_until,
)
from tests.plan.worlds import NOW, World, make_pod, running


def attempt(pod: str, begin: int, end: int | None, gpus: int = 1, pool: str = "") -> AttemptStatus:
    """An attempt from ``begin`` to ``end``, in seconds before now."""
    return AttemptStatus(
        number=1,
        pod=pod,
        gpus=gpus,
        pool=pool,
        held_from=NOW - timedelta(seconds=begin),
        end=None if end is None else NOW - timedelta(seconds=end),
    )


def test_an_attempt_counts_once_per_gpu_and_goes_on_until_now() -> None:
    assert attempt_seconds(attempt("a", 100, 40, gpus=4)) == 240
    assert attempt_seconds(attempt("a", 100, None)) == 0
    assert attempt_seconds(attempt("a", 100, None), NOW) == 100
    assert attempt_seconds(attempt("a", 100, 40), since=NOW - timedelta(seconds=60)) == 20
    assert attempt_seconds(attempt("a", 100, 40), since=NOW) == 0
    assert attempt_seconds(attempt("a", 100, -50), latest=NOW) == 100
    assert attempt_seconds(attempt("a", -50, -90), latest=NOW) == 0


def test_the_total_keeps_attempts_that_the_status_no_longer_lists() -> None:
    world = running()
    for number in range(30):
        ended = make_pod(f"pod-{number}", exit_code=40, age=timedelta(seconds=60))
        world = world.seeing(pods=(ended,)).settled()
    assert len(world.run.status.attempts) == 20
    assert world.run.status.gpu_seconds >= 30 * 60


def test_what_was_counted_is_not_counted_again() -> None:
    first, second = attempt("a", 100, 40), attempt("b", 30, 10)
    assert newly_ended_seconds((), (first,)) == 60
    assert newly_ended_seconds((first,), (first,)) == 0
    assert newly_ended_seconds((first,), (first, second)) == 20
    assert newly_ended_seconds((first,), (second,)) == 20


def status(total: int, *attempts: AttemptStatus) -> FlashRunStatus:
    return FlashRunStatus(
        attempts=attempts,
        gpu_seconds=total,
        start_time=NOW - timedelta(days=1),
        resolved=ResolvedStatus(pool="large"),
    )


def test_time_is_added_up_by_pool_with_what_is_no_longer_listed() -> None:
    both = status(500, attempt("a", 300, 200, pool="small"), attempt("b", 100, 0, pool="large"))
    assert seconds_by_pool(both) == {"small": 100, "large": 400}
    recent = NOW - timedelta(seconds=50)
    assert seconds_by_pool(both, since=recent) == {"large": 50}


def test_time_before_the_trainer_starts_counts_as_the_gpu_is_held() -> None:
    pod = make_pod(exit_code=40, age=timedelta(seconds=30))
    pod["status"]["startTime"] = "2026-11-22T11:57:00Z"
    used = running().seeing(pods=(pod,)).decide().status
    assert used.gpu_seconds == 180


def test_a_run_that_is_deleted_has_used_its_gpu_until_then() -> None:
    world: World = running()
    status = world.run.status.to_manifest()
    manifest = {
        "metadata": {"name": "a", "namespace": "b", "uid": "c"},
        "spec": world.run.spec.to_manifest(),
        "status": status,
    }
    assert used_until(manifest, NOW + timedelta(seconds=30)).total == 60
    assert used_until({**manifest, "spec": {}}, NOW).total == 0
    assert used_until({}, NOW).total == 0


def test_the_part_of_a_month_begins_with_its_first_day() -> None:
    november = datetime(2026, 11, 1, 6, tzinfo=UTC)
    over_midnight = AttemptStatus(
        number=1, pod="pod", gpus=2, held_from=november - timedelta(hours=9), end=november
    )
    found = gpu_time(FlashRunStatus(attempts=(over_midnight,), gpu_seconds=18 * 3600), november)
    assert (found.total, found.of_month) == (18 * 3600, 12 * 3600)
    one_that_goes_on = over_midnight.replace(end=None)
    status = FlashRunStatus(attempts=(one_that_goes_on,))
    assert gpu_time(status, november).total == 0
    assert gpu_time(status, november, goes_on=True).of_month == 12 * 3600
