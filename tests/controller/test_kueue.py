"""A run in a queue of Kueue: waiting, preempted, paused by its user, and going on.

API server, Job controller and the definitions of Kueue's kinds are real; its manager is played
(``tests.controller.kueue``), as the kubelet is.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from flashrun.api import names
from flashrun.api.resource import FlashRun
from tests.controller.kueue import (
    NO_QUOTA,
    QUEUE,
    RUN,
    VERSIONS,
    PlayedKueue,
    is_suspended,
    kueue_kinds,
    message_of,
    save_and_end,
    start_training,
)
from tests.controller.stage import World, now

pytestmark = pytest.mark.api
PREEMPTED = "Preempted to accommodate a workload (UID: a, JobUID: b) due to prioritization"


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest, installed: Path):
    """Kueue's kinds, in one version."""
    with kueue_kinds(installed, (request.param,)):
        yield request.param


@pytest.fixture
def world(version: str, make_world: Callable[..., World]) -> World:
    return make_world(queue=QUEUE)


@pytest_asyncio.fixture
async def kueue(world: World, version: str) -> AsyncIterator[PlayedKueue]:
    played = PlayedKueue(world.cluster, world.kubeconfig, world.namespace, version)
    async with played.at_work():
        yield played


async def test_a_run_waits_in_kueues_own_words_and_starts_when_there_is_quota(
    world: World, kueue: PlayedKueue
):
    kueue.quota = 0
    await world.submit(RUN)
    run = await world.until(RUN, lambda run: NO_QUOTA in message_of(run))
    assert (run.status.phase, run.status.pending.reason) == ("Pending", "Queued")
    assert message_of(run) == f"The Job waits in LocalQueue {QUEUE}: {NO_QUOTA}"
    assert is_suspended(await world.job(RUN))

    kueue.quota = 1
    await (await world.trainer(RUN)).succeed()
    await world.phase(RUN, "Succeeded")


async def test_a_run_that_its_user_pauses_rests_although_kueue_has_admitted_it(
    world: World, kueue: PlayedKueue
):
    trainer = await start_training(world)
    await world.control(RUN, suspend=True)
    await world.until(RUN, lambda run: run.status.condition("Ready").reason == "Suspending")
    await save_and_end(world, trainer)
    await world.phase(RUN, "Suspended")
    await kueue.looks_again()
    for _ in range(3):
        await world.pass_over(RUN)
        await kueue.looks_again()
    job = await world.job(RUN)
    assert is_suspended(job)
    assert len(kueue.started) == 1  # Kueue never let it go on against its user
    assert not job["status"].get("startTime")  # its wall clock begins anew
    generation = job["metadata"]["generation"]

    await world.control(RUN, suspend=False)
    await world.pass_over(RUN)
    again = await world.trainer(RUN, attempt=2)
    assert again.name != trainer.name
    await again.succeed()
    run = await world.phase(RUN, "Succeeded")
    assert (await world.job(RUN))["metadata"]["generation"] <= generation + 2
    assert run.status.resolved.job == 0


async def test_a_preempted_run_saves_says_who_preempted_it_and_goes_on(
    world: World, kueue: PlayedKueue
):
    trainer = await start_training(world)
    begun = (await world.job(RUN))["status"]["startTime"]
    assert begun
    await kueue.evict(await world.job(RUN), "Preempted", PREEMPTED)
    run = await world.until(RUN, lambda run: "saves and stops" in message_of(run))
    assert f"Preempted: {PREEMPTED}" in message_of(run)
    await save_and_end(world, trainer)
    run = await world.until(RUN, lambda run: NO_QUOTA in message_of(run))
    assert message_of(run).startswith("Kueue stopped the run (Preempted). The Job waits in ")
    assert run.status.phase == "Pending"
    assert not (await world.job(RUN))["status"].get("startTime")

    kueue.quota = 1
    again = await world.trainer(RUN, attempt=2)
    await again.succeed()
    run = await world.phase(RUN, "Succeeded")
    assert (run.status.resolved.job, run.status.resolved.failures_before) == (0, 0)
    assert run.status.attempts[0].reason == "Interrupted"


async def access_of(world: World, run: FlashRun) -> str:
    """The credentials for storage that pods of a run get."""
    name = names.storage_secret_name(run.name, run.uid)
    return await world.cluster.secret_value(world.namespace, name, names.ACCESS_KEY)


async def test_credentials_are_new_after_hours_in_a_queue(world: World, kueue: PlayedKueue):
    kueue.quota = 0
    await world.submit(RUN)
    run = await world.until(RUN, lambda run: NO_QUOTA in message_of(run))
    first = await access_of(world, run)
    world.ahead = world.ahead + (run.status.storage_access_expires - now()) * 0.75
    await world.pass_over(RUN)
    assert await access_of(world, run) != first
    assert await world.jobs(RUN) == [0]


async def test_a_run_that_is_cancelled_while_it_waits_leaves_its_queue(
    world: World, kueue: PlayedKueue
):
    kueue.quota = 0
    await world.submit(RUN)
    await world.until(RUN, lambda run: NO_QUOTA in message_of(run))
    await world.control(RUN, cancel=True)
    await world.phase(RUN, "Cancelled")
    assert await world.jobs(RUN) == []
