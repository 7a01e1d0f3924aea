"""The back-off of the Job controller: how long it is, and that status says when it ends."""

from datetime import timedelta

import pytest

from flashrun.plan import back_off
from tests.plan.worlds import NOW, World, make_pod, running

SECONDS = [0, 10, 20, 40, 80, 160, 320, 600, 600]


def test_it_doubles_from_ten_seconds_to_ten_minutes() -> None:
    assert [back_off.back_off(count).total_seconds() for count in range(9)] == SECONDS


@pytest.mark.parametrize("code", [40, 75], ids=["an interruption", "a counted failure"])
def test_status_says_when_the_next_pod_comes(code: int) -> None:
    age = timedelta(seconds=1)
    pods = tuple(
        make_pod(f"pod-{number}", exit_code=code, age=age * (9 - number)) for number in (1, 2, 3)
    )
    world = running().seeing(pods=pods)
    ready = world.decide().status.condition("Ready")

    assert ready is not None
    assert "The Job controller creates the next pod at 2026-11-22T12:00:40Z." in ready.message
    late = world.later(seconds=41).decide().status.condition("Ready")
    assert late is not None
    assert "has not created the next pod yet" in late.message


def test_attempts_whose_pods_are_gone_count_and_those_of_other_jobs_do_not() -> None:
    world = running()
    for number in (1, 2):
        pod = make_pod(f"pod-{number}", exit_code=75, age=timedelta(seconds=9 - number))
        world = world.seeing(pods=(pod,)).settled()
        [job] = world.observed.jobs
    stem = job["metadata"]["name"]
    named = tuple(
        attempt.replace(pod=f"{stem}-{tail}")
        for attempt, tail in zip(world.run.status.attempts, ("abcde", "1-abcde"), strict=True)
    )
    status = world.run.status.replace(attempts=named)
    world = World(world.run.replace(status=status), world.observed)
    context = world.seeing(pods=()).context()

    assert [attempt.pod for attempt in back_off.ended_attempts(context)] == [f"{stem}-abcde"]
    assert back_off.next_try(context) == NOW + timedelta(seconds=10)
