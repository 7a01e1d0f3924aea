"""Passes that follow from what the watches have shown, and what a stale watch can do to a run.

The API server and the watches are real. A watch is made stale by not passing on what it shows.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio

from flashrun.api import names
from flashrun.cluster import Cluster
from flashrun.cluster_requests import Request
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.queue import RunKey
from flashrun.controller.watch import Watch
from flashrun.plan.objects import owned_metadata
from tests.controller.stage import Kubelet, World
from tests.controller.test_watch import until

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"


class StoppableCache(ObjectCache):
    """A cache that a watch which has lost its events still believes to be fresh."""

    stopped = False

    def put(self, *words: Any) -> Any:
        return None if self.stopped else super().put(*words)

    def remove(self, *words: Any) -> None:
        if not self.stopped:
            super().remove(*words)

    def wrote(self, *words: Any) -> None:
        if not self.stopped:
            super().wrote(*words)

    @contextmanager
    def stale(self) -> Iterator[None]:
        self.stopped = True
        try:
            yield
        finally:
            self.stopped = False


@pytest_asyncio.fixture
async def cache(world: World) -> AsyncIterator[StoppableCache]:
    """The cache that the world's passes read, filled by real watches."""
    cache = StoppableCache()
    world.cache = cache
    world.restart()
    connection = await world.cluster.connection()
    watch = Watch(lambda: (world.namespace,), lambda: connection, lambda *_: None, cache=cache)
    watch.start()
    await until(lambda: cache.is_listed(world.namespace))
    yield cache
    watch.stop()
    await until(lambda: not watch._thread.is_alive(), 30)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each verb and kind was asked of the API server."""
    counted: Counter[str] = Counter()
    call = Cluster._call

    async def counting(self: Cluster, request: Request) -> Any:
        counted[f"{request.verb} {request.resource.plural}"] += 1
        return await call(self, request)

    monkeypatch.setattr(Cluster, "_call", counting)
    return counted


async def settle(world: World, cache: ObjectCache, name: str) -> None:
    """Wait until the cache shows a run, its Jobs and its pods as the API server has them."""
    run = await world.cluster.get(names.KIND, world.namespace, name)
    labels = {names.RUN_UID_LABEL: run["metadata"]["uid"]}

    def version(item: Any) -> str:
        return str(item["metadata"]["resourceVersion"])

    current = {kind: {version(i) for i in await world.cluster.list(kind, world.namespace, labels)}
               for kind in ("Job", "Pod")}  # fmt: skip

    def is_shown() -> bool:
        known = cache.run(RunKey(world.namespace, name))
        if known is None or version(known) != version(run):
            return False
        for kind, versions in current.items():
            children = cache.children(kind, world.namespace, run["metadata"]["uid"])
            if children is None or set(map(version, children)) != versions:
                return False
        return True

    await until(is_shown)


def reads_in(requests: Counter[str]) -> dict[str, int]:
    """Return what the operator has read, without what the test itself asks for."""
    return {asked: n for asked, n in requests.items() if asked.startswith(("get", "list"))}


async def test_a_run_begins_without_a_read_and_with_six_writes(
    world: World, cache: StoppableCache, requests: Counter[str]
):
    """Until it runs; a seventh one may say that its pod has not begun, and Events are not meant."""
    await world.submit(RUN)
    await settle(world, cache, RUN)
    requests.clear()
    await world.pass_over(RUN)
    writes = Counter(requests)
    await Kubelet(world.cluster).start(await world.pod(RUN))
    await settle(world, cache, RUN)
    requests.clear()
    await world.pass_over(RUN)
    writes += requests
    assert (await world.run(RUN)).status.phase == "Running"
    written = {asked: n for asked, n in writes.items() if asked.startswith(("create", "patch"))}
    del written["create events"]
    assert written == {
        "patch configmaps": 1,
        "create secrets": 1,
        "create jobs": 1,
        "patch flashruns": 3,
    }


async def test_secrets_that_an_earlier_process_wrote_are_found_though_the_run_has_no_pins(
    world: World, cache: StoppableCache
):
    """Such a run is expected to have none: creating them is refused, and they are read."""
    run = await world.submit(RUN)
    name = names.storage_secret_name(RUN, run.uid)
    owned = owned_metadata(run, name)
    await world.cluster.create_secret(owned, {names.ACCESS_KEY: "{}"})
    await settle(world, cache, RUN)
    await world.pass_over(RUN)
    assert (await world.run(RUN)).status.phase == "Starting"
    assert await world.cluster.secret_value(world.namespace, name, names.ACCESS_KEY) == "{}"


async def test_a_pass_over_a_known_run_reads_nothing(
    world: World, cache: StoppableCache, requests: Counter[str]
):
    await world.submit(RUN)
    await settle(world, cache, RUN)
    requests.clear()
    await world.pass_over(RUN)
    assert requests["create jobs"] == 1
    assert requests["patch flashruns"] == 2
    assert not reads_in(requests)

    pod = await world.pod(RUN)
    await Kubelet(world.cluster).start(pod)
    await settle(world, cache, RUN)
    await world.pass_over(RUN)  # the deadline of the Job counts from its pod's start
    await settle(world, cache, RUN)
    requests.clear()
    await world.pass_over(RUN)
    assert not reads_in(requests)
    assert (await world.run(RUN)).status.phase == "Running"


async def test_a_run_is_carried_to_its_end_from_the_cache(
    world: World, cache: StoppableCache, requests: Counter[str]
):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(3)
    await world.phase(RUN, "Running")
    await trainer.succeed()
    requests.clear()
    run = await world.phase(RUN, "Succeeded")
    assert run.status.checkpoint_count == 1
    assert requests["list pods"] >= 1, "the end of a run was not confirmed"
    assert await world.jobs(RUN) == [0]


async def test_a_run_whose_pod_the_watch_has_lost_does_not_end_before_its_pod(
    world: World, cache: StoppableCache
):
    """Its result is in storage: without a pod that is active, the run would have succeeded."""
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    await world.phase(RUN, "Running")
    await settle(world, cache, RUN)
    with cache.stale():
        ObjectCache.remove(cache, "Pod", world.namespace, trainer.name)
        trainer.claim()
        trainer.publish()
        trainer.conclude(0)
        await world.pass_over(RUN)
        run = await world.run(RUN)
        assert (run.status.phase, run.status.condition("Ready").reason) == ("Running", "Finishing")
        pod = await world.cluster.get("Pod", world.namespace, trainer.name)
        assert "deletionTimestamp" not in pod["metadata"]
        await trainer.end(0)
        await world.pass_over(RUN)
        assert (await world.run(RUN)).status.phase == "Succeeded"


async def test_a_stale_run_gets_no_second_job_and_no_older_status(
    world: World, cache: StoppableCache
):
    """The watch still shows the run as it was when it was created."""
    await world.submit(RUN)
    await settle(world, cache, RUN)
    with cache.stale():
        await world.pass_over(RUN)
        first = await world.run(RUN)
        assert first.status.phase == "Starting"
        job = (await world.job(RUN))["metadata"]["uid"]
        await (await world.trainer(RUN)).succeed()
        await world.pass_over(RUN)  # begins with the run as it was, and looks again
        assert (await world.run(RUN)).status.phase == "Succeeded"
        await world.pass_over(RUN)
        assert (await world.run(RUN)).status.phase == "Succeeded"
        assert (await world.job(RUN))["metadata"]["uid"] == job
        assert await world.jobs(RUN) == [0]


async def test_a_cancellation_that_the_watch_has_shown_is_confirmed_and_done(
    world: World, cache: StoppableCache
):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    await world.control(RUN, cancel=True)
    await world.phase(RUN, "Cancelled")


async def test_a_silent_watch_is_not_believed(
    world: World, cache: StoppableCache, requests: Counter[str]
):
    await world.submit(RUN)
    await settle(world, cache, RUN)
    for kind in (names.KIND, "Job", "Pod"):
        cache._collection(kind, world.namespace).heard = float("-inf")
    requests.clear()
    await world.pass_over(RUN)
    assert requests["get flashruns"] == 1
    assert requests["list jobs"] == requests["list pods"] == 1
