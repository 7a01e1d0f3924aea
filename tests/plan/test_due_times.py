"""A run with active pods has one time at which something is due, and no pass before it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flashrun.plan.decide import decide
from flashrun.plan.due_times import LONGEST_SECONDS, OVERDUE_SECONDS, seconds_to_next_pass
from flashrun.plan.run_context import build_context
from tests.plan.worlds import NOW, PLATFORM, World, make_pod, running

STALL = PLATFORM.trainer.stall_seconds
LIFETIME = PLATFORM.storage.credentials_seconds


def due(world: World) -> float:
    return seconds_to_next_pass(build_context(world.run, world.observed, world.platform, world.now))


def silent(seconds: float, **state: object) -> World:
    """A running run whose pod has shown no sign of life for that long."""
    pod, world = make_pod(**state), running()  # type: ignore[arg-type]
    silence = {pod["metadata"]["uid"]: seconds}
    return replace(world, observed=replace(world.observed, pods=(pod,), silent_seconds=silence))


def expiring(expires: datetime) -> World:
    world = silent(0)
    observed = replace(world.observed, has_access=True, access_expires=expires)
    return replace(world, observed=observed)


def test_nothing_is_due_soon_for_a_run_that_trains() -> None:
    assert due(silent(0)) == LONGEST_SECONDS


@pytest.mark.parametrize(
    ("world", "seconds"),
    [
        (silent(STALL - 40), 40),
        (silent(STALL + 40), OVERDUE_SECONDS),
        (silent(600 - 25, deleted=timedelta(seconds=600 - 25)), 25),
        (expiring(NOW + timedelta(seconds=LIFETIME / 2 + 30)), 30),
        (expiring(NOW + timedelta(seconds=LIFETIME / 2 + 0.2)), 1),
        (expiring(NOW + timedelta(seconds=LIFETIME / 4)), OVERDUE_SECONDS),
        (expiring(datetime.min.replace(tzinfo=UTC)), OVERDUE_SECONDS),
        (expiring(datetime.max.replace(tzinfo=UTC)), LONGEST_SECONDS),
    ],
)
def test_the_first_of_what_is_due_counts(world: World, seconds: float) -> None:
    assert due(world) == seconds


def test_an_image_that_cannot_be_pulled_is_given_up_in_time() -> None:
    pod = make_pod(waiting=("ImagePullBackOff", "x"))
    world = silent(0)
    uid = pod["metadata"]["uid"]
    observed = replace(world.observed, pods=(pod,), pull_failed_seconds={uid: 590.0})
    assert due(replace(world, observed=observed)) == 11


def test_a_decision_about_active_pods_has_this_time_and_one_about_others_has_none() -> None:
    world = silent(STALL - 40)
    assert decide(world.run, world.observed, world.platform, world.now).requeue_seconds == 40
    ended = running()
    without = replace(ended, observed=replace(ended.observed, pods=(make_pod(exit_code=0),)))
    assert without.decide().requeue_seconds != LONGEST_SECONDS
