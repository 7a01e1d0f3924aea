"""The GPU hours of a run against its budget."""

from datetime import timedelta

import pytest

from flashrun.api.resource import AttemptStatus, FlashRun, FlashRunStatus
from flashrun.plan.budgets import gpus_held, hours_text, is_used_up, time_left, used_seconds
from tests.plan.worlds import NOW, make_run


def attempt(hours: float, gpus: int = 1, ended: float | None = None) -> AttemptStatus:
    """An attempt that began ``hours`` ago, and ended some hours ago if it has."""
    end = None if ended is None else NOW - timedelta(hours=ended)
    begun = NOW - timedelta(hours=hours)
    return AttemptStatus(number=1, pod=f"pod-{hours}", gpus=gpus, held_from=begun, end=end)


def having(*attempts: AttemptStatus, hours: float | None) -> tuple[FlashRun, FlashRunStatus]:
    run = make_run({} if hours is None else {"budget": {"gpu_hours": hours}})
    return run, FlashRunStatus(attempts=attempts)


CASES = [
    # what the run has done, its budget, whether that is used up, hours that are left
    ("an attempt that goes on counts until now", [attempt(1)], 1.5, False, 0.5),
    ("and at its end the budget is used up", [attempt(1)], 1, True, 0),
    ("each GPU counts", [attempt(1, gpus=4)], 6, False, 0.5),
    ("all attempts count", [attempt(9, ended=8), attempt(1)], 2, True, 0),
    ("waiting between attempts does not", [attempt(9, ended=8), attempt(1)], 3, False, 1),
    ("without pods nothing is foreseeable", [attempt(9, ended=8)], 3, False, None),
    ("a run without a budget has no end of it", [attempt(100)], None, False, None),
]


@pytest.mark.parametrize(("case", "attempts", "hours", "used_up", "left"), CASES)
def test_a_budget_counts_the_time_of_pods(
    case: str, attempts: list[AttemptStatus], hours: float | None, used_up: bool, left: float | None
) -> None:
    run, status = having(*attempts, hours=hours)
    assert is_used_up(run, status, NOW) is used_up, case
    found = time_left(run, status, NOW)
    assert (None if found is None else found.total_seconds() / 3600) == left, case


def test_attempts_that_the_status_no_longer_lists_count() -> None:
    _, status = having(attempt(1), hours=None)
    assert used_seconds(status.replace(gpu_seconds=7200), NOW) == 3 * 3600


def test_a_pod_that_no_kubelet_has_taken_on_holds_nothing() -> None:
    waiting = AttemptStatus(number=0, pod="pod", gpus=4)
    assert gpus_held(FlashRunStatus(attempts=(waiting, attempt(1, gpus=2)))) == 2


@pytest.mark.parametrize(
    ("hours", "text"),
    [(20, "20"), (1.25, "1.25"), (1.5, "1.5"), (1000, "1,000"), (0.004, "0.004"), (0, "0")],
)
def test_hours_are_short_and_never_lose_all_digits(hours: float, text: str) -> None:
    assert hours_text(hours * 3600) == text
