"""Health: every part reports its problems."""

import socket

import aiohttp
import pytest

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


@pytest.mark.parametrize("host", ["127.0.0.1", *(["[::1]"] if socket.has_dualstack_ipv6() else [])])
async def test_probes_are_answered_in_a_cluster_of_either_family(host: str):
    runner = await Health(Clock()).serve(0)
    port = runner.addresses[0][1]
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{host}:{port}/healthz") as answer,
        ):
            assert (answer.status, await answer.text()) == (200, "ok")
    finally:
        await runner.cleanup()
