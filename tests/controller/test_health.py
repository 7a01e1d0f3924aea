"""Health: every part reports its problems."""

from flashrun.controller.health import Health
from tests.controller.clocks import Clock


def test_a_loop_that_lags_is_not_healthy():
    clock = Clock()
    health = Health(clock)
    assert health.problems() == []
    clock.now = 20
    assert "lags" in health.problems()[0]


def test_every_part_can_report_a_problem():
    health = Health(Clock())
    health.checks += [lambda: "", lambda: "2 of 3 watches are alive"]
    assert health.problems() == ["2 of 3 watches are alive"]
