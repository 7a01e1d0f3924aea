"""The lease: of several replicas one acts, and it stops before another begins."""

import asyncio
import json
import time
from typing import Any

import pytest

from flashrun.cluster_errors import Conflict
from flashrun.controller import lease as lease_module
from flashrun.controller.lease import (
    HOLD_SECONDS,
    LEASE_SECONDS,
    NOT_RENEWED_SECONDS,
    RETRY_SECONDS,
    STUCK_SECONDS,
    Lease,
    NotLeading,
)
from tests.controller.clocks import Clock


class LeaseApi:
    """One Lease with optimistic locking: the part of an API server that a lease needs."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = self.hangs = False
        self.version = self.reads = self.writes = 0

    async def find(self, *_: str) -> dict[str, Any] | None:
        self.reads += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.down:
            raise Conflict("down")
        return json.loads(json.dumps(self.lease)) if self.lease else None

    async def get(self, *_: str) -> dict[str, Any]:
        found = await self.find()
        assert found is not None
        return found

    async def create(self, lease: dict[str, Any]) -> dict[str, Any]:
        lease["metadata"]["uid"] = "uid-1"
        self.lease = lease | {"version": self.version}
        return self.lease

    async def replace(self, lease: dict[str, Any]) -> dict[str, Any]:
        self.writes += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.down or lease["version"] != self.version:
            raise Conflict("changed")
        self.version += 1
        self.lease = lease | {"version": self.version}
        return json.loads(json.dumps(self.lease))


@pytest.fixture
def api() -> LeaseApi:
    return LeaseApi()


def candidate(api: LeaseApi, name: str, clock: Clock) -> Lease:
    return Lease(api, "ns", "lease", name, clock)  # type: ignore[arg-type]


async def test_a_renewal_is_one_call_until_somebody_else_writes(api: LeaseApi):
    holder = candidate(api, "first", Clock())
    for _ in range(2):
        assert await holder._try_to_renew()
    before = api.reads, api.writes
    assert await holder._try_to_renew()
    assert (api.reads, api.writes) == (before[0], before[1] + 1)
    await api.replace(await api.get())
    assert await holder._try_to_renew()


async def test_of_two_candidates_one_holds_the_lease(api: LeaseApi):
    clock = Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    assert await first._try_to_renew()
    assert not await second._try_to_renew()
    assert (first.held, second.held) == (True, False)


async def test_every_holder_knows_the_uid_of_the_lease(api: LeaseApi):
    clock = Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    assert await first._try_to_renew()
    await first.release()
    assert await second._try_to_renew()
    assert (first.uid, second.uid) == ("uid-1", "uid-1")


async def test_a_process_that_is_started_again_in_its_pod_goes_on_at_once(api: LeaseApi):
    clock = Clock()
    assert await candidate(api, "pod-1", clock)._try_to_renew()
    assert not await candidate(api, "pod-2", clock)._try_to_renew()
    assert await candidate(api, "pod-1", clock)._try_to_renew()


async def test_another_replica_begins_within_ten_seconds_of_the_last_renewal(api: LeaseApi):
    clock = Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    await first._try_to_renew()
    while not await second._try_to_renew():
        clock.now += RETRY_SECONDS
    assert HOLD_SECONDS < clock.now <= 10


async def test_a_holder_stops_before_anyone_else_may_begin(api: LeaseApi):
    clock = Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    await first._try_to_renew()
    await second._try_to_renew()
    clock.now = HOLD_SECONDS + 0.1
    assert not first.held
    assert not await second._try_to_renew()
    clock.now = LEASE_SECONDS + 0.1
    assert await second._try_to_renew()
    assert not await first._try_to_renew()


async def test_a_holder_whose_renewals_fail_stops_in_time(api: LeaseApi):
    clock = Clock()
    first = candidate(api, "first", clock)
    await first._try_to_renew()
    api.down = True
    clock.now = HOLD_SECONDS - 0.5
    assert not await first._try_to_renew()
    assert first.held
    clock.now = HOLD_SECONDS + 0.1
    assert not first.held


async def test_a_lease_that_was_held_and_is_not_renewed_is_a_problem(api: LeaseApi):
    clock = Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    assert await first._try_to_renew()
    api.down = True
    while clock.now < NOT_RENEWED_SECONDS:  # an outage is survived
        clock.now += STUCK_SECONDS / 2
        assert not await first._try_to_renew()
        assert not await second._try_to_renew()
        assert first.problem() == ""
    clock.now += 1
    assert "has not been renewed for 121 s" in first.problem()
    assert second.problem() == ""  # it only waits
    api.down = False
    assert await first._try_to_renew()
    assert first.problem() == ""


async def test_a_lease_that_nothing_tries_to_renew_is_a_problem(api: LeaseApi):
    clock = Clock()
    holder = candidate(api, "first", clock)
    assert await holder._try_to_renew()
    clock.now = STUCK_SECONDS + 1
    assert "nothing has tried to renew the lease for 21 s" in holder.problem()


async def test_a_candidate_judges_by_what_it_saw_and_not_by_foreign_clocks(api: LeaseApi):
    ahead, clock = Clock(), Clock()
    ahead.now = 1e6
    first, second = candidate(api, "first", ahead), candidate(api, "second", clock)
    for _ in range(5):
        assert await first._try_to_renew()
        assert not await second._try_to_renew()
        ahead.now += LEASE_SECONDS - 1
        clock.now += LEASE_SECONDS - 1


async def test_a_released_lease_is_taken_at_once(api: LeaseApi):
    clock = Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    await first._try_to_renew()
    await first.release()
    assert not first.held
    assert await second._try_to_renew()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short times; a renewal that hangs does so for longer than the lease is held."""
    monkeypatch.setattr(lease_module, "HOLD_SECONDS", 1.0)
    monkeypatch.setattr(lease_module, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(lease_module, "TRY_SECONDS", 60.0)


@pytest.mark.usefixtures("quick")
async def test_work_ends_in_time_also_while_a_renewal_hangs_and_goes_on_afterwards(
    api: LeaseApi, monkeypatch: pytest.MonkeyPatch
):
    holder, regained = Lease(api, "ns", "lease", "first"), asyncio.Event()  # type: ignore[arg-type]
    holder.on_regained.append(regained.set)
    await holder.acquire()
    renewing = asyncio.create_task(holder.renew_until_taken())
    api.hangs = True
    began = time.monotonic()
    with pytest.raises(NotLeading):
        async with holder.while_held():
            await asyncio.wait_for(asyncio.Event().wait(), 30)  # a call that hangs
    assert time.monotonic() - began >= 0.9
    with pytest.raises(NotLeading):
        holder.check()
    assert not regained.is_set()

    monkeypatch.setattr(lease_module, "TRY_SECONDS", 0.2)
    api.hangs = False
    async with asyncio.timeout(90), holder.while_held():
        holder.check()
    await asyncio.wait_for(regained.wait(), 30)
    assert not renewing.done()
    renewing.cancel()


@pytest.mark.usefixtures("quick")
async def test_a_holder_ends_when_another_replica_has_acted_meanwhile(api: LeaseApi):
    """Also if that one has released the lease: what this one knows may be out of date."""
    clock = Clock()
    holder, other = candidate(api, "first", clock), candidate(api, "second", clock)
    await holder.acquire()
    assert not await other._try_to_renew()
    clock.now = LEASE_SECONDS + 0.1
    assert await other._try_to_renew()
    await other.release()
    await asyncio.wait_for(holder.renew_until_taken(), 30)
    assert not holder.held


async def test_a_time_limit_inside_work_is_not_taken_for_the_end_of_the_lease(api: LeaseApi):
    holder = candidate(api, "first", Clock())
    await holder.acquire()
    with pytest.raises(TimeoutError):
        async with holder.while_held():
            raise TimeoutError


async def test_a_renewal_that_hangs_is_given_up_and_another_one_holds_the_lease(
    api: LeaseApi, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lease_module, "TRY_SECONDS", 0.05)
    clock = Clock()
    holder = candidate(api, "first", clock)
    await holder.acquire()
    api.hangs = True
    assert not await holder._try_to_renew(lease_module.TRY_SECONDS)
    api.hangs = False
    clock.now = HOLD_SECONDS - 1
    assert await holder._try_to_renew(lease_module.TRY_SECONDS)
