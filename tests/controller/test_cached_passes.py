"""Passes that follow from what the watches have shown, and what a stale watch can do to a run.

The API server and the watches are real. A watch is made stale by not passing on what it shows.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio

from flashrun.api import names
from flashrun.api.records import EnvironmentPointer
from flashrun.api.resource import FlashRun
from flashrun.cluster import Cluster
from flashrun.cluster_errors import Forbidden
from flashrun.cluster_requests import Request
from flashrun.controller import observe, reconcile
from flashrun.controller.known_runs import KnownRuns
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.queue import RunKey
from flashrun.controller.reconcile import UNWRITTEN_SECONDS
from flashrun.controller.storage_access import AccessIssuer
from flashrun.controller.storage_threads import call_storage
from flashrun.controller.watch import Watch
from flashrun.plan.objects import owned_metadata
from flashrun.store import Store
from flashrun.store_errors import Unavailable
from tests.controller.stage import Kubelet, World, now
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
    """Wait until the cache shows a run, its Jobs and its pods as the API server has them.

    The API server is asked again each time: the Job controller may change them meanwhile.
    """

    def version(item: Any) -> str:
        return str(item["metadata"]["resourceVersion"])

    async def is_shown() -> bool:
        run = await world.cluster.get(names.KIND, world.namespace, name)
        uid = run["metadata"]["uid"]
        known = cache.run(RunKey(world.namespace, name))
        if known is None or version(known) != version(run):
            return False
        for kind in ("Job", "Pod"):
            there = await world.cluster.list(kind, world.namespace, {names.RUN_UID_LABEL: uid})
            children = cache.children(kind, world.namespace, uid)
            if children is None or set(map(version, children)) != set(map(version, there)):
                return False
        return True

    async with asyncio.timeout(20):
        while not await is_shown():  # noqa: ASYNC110 -- the API server has the objects
            await asyncio.sleep(0.05)


def reads_in(requests: Counter[str]) -> dict[str, int]:
    """Return what the operator has read, without what the test itself asks for."""
    return {asked: n for asked, n in requests.items() if asked.startswith(("get", "list"))}


async def digest_after_a_push(world: World, run: FlashRun) -> str:
    """Push another package ("eee…"), and return the one that the run trains with."""
    key = names.environment_latest_key(run.spec.environment.id)
    world.store.put_json(key, EnvironmentPointer(digest="e" * 64, size=3, pushed=now()))
    launched = await world.launched(RUN)
    assert launched.status.resolved is not None
    return str(launched.status.resolved.environment_digest)


async def test_a_run_begins_without_a_read_and_with_four_writes(
    world: World, cache: StoppableCache, requests: Counter[str]
):
    """Until it runs; a fifth one may say that its pod has not begun, and Events are not meant."""
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
        "create configmaps": 1,
        "create secrets": 1,
        "create jobs": 1,
        "patch flashruns": 1,
    }


async def test_what_was_chosen_outlives_an_operator_that_has_not_written_it(
    world: World, cache: StoppableCache
):
    """Its Job is replaced by one that is the same, whatever was pushed meanwhile."""
    run = await world.submit(RUN)
    await settle(world, cache, RUN)
    await world.pass_over(RUN)
    assert (await world.run(RUN)).status.resolved is None, "the first status is written later"
    first = await world.job(RUN)
    key = names.environment_latest_key(run.spec.environment.id)
    world.store.put_json(key, EnvironmentPointer(digest="e" * 64, size=3, pushed=now()))

    world.restart()  # in a process that has not read which runs storage knows
    run = await world.launched(RUN)
    assert run.status.resolved is not None
    assert run.status.resolved.environment_digest == "d" * 64
    again = await world.job(RUN)
    assert again["metadata"]["uid"] != first["metadata"]["uid"]
    assert again["spec"]["template"]["spec"] == first["spec"]["template"]["spec"]


async def test_what_was_chosen_is_kept_when_the_job_is_refused(
    world: World, cache: StoppableCache, monkeypatch: pytest.MonkeyPatch
):
    run = await world.submit(RUN)
    await settle(world, cache, RUN)
    create = Cluster.create

    async def refuse_jobs(self: Cluster, manifest: Any, *words: Any, **options: Any) -> Any:
        if manifest["kind"] == "Job":
            raise Forbidden("a quota refuses the Job")
        return await create(self, manifest, *words, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "create", refuse_jobs)
        with pytest.raises(Forbidden):
            await world.pass_over(RUN)
    assert (await world.run(RUN)).status.pending is not None
    assert await digest_after_a_push(world, run) == "d" * 64


async def test_no_other_run_begins_while_the_status_of_one_cannot_be_written(
    world: World, cache: StoppableCache, monkeypatch: pytest.MonkeyPatch
):
    other = "flash-2-0a1b2c3d"
    for name in (RUN, other):
        await world.submit(name)
        await settle(world, cache, name)
    patch_object = Cluster.patch

    async def refuse_statuses(self: Cluster, *words: Any, **options: Any) -> Any:
        if options.get("subresource") == "status":
            raise Forbidden("statuses may not be written")
        return await patch_object(self, *words, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "patch", refuse_statuses)
        await world.pass_over(RUN)
        for name in (RUN, other):
            with pytest.raises(Forbidden):
                await world.pass_over(name)
    assert (await world.jobs(RUN), await world.jobs(other)) == ([0], [])
    for name in (RUN, other):
        await world.launched(name)


async def test_nothing_is_chosen_for_good_while_storage_issues_no_credentials(
    world: World, cache: StoppableCache, monkeypatch: pytest.MonkeyPatch
):
    """Nothing of the run exists yet: what is pushed meanwhile counts."""
    run = await world.submit(RUN)
    await settle(world, cache, RUN)

    def refuse(*_: object) -> None:
        raise Unavailable("no credentials")

    with monkeypatch.context() as patch:
        patch.setattr(AccessIssuer, "issue", refuse)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await world.pass_over(RUN)
    assert {known.uid for known in world.known.read()} == {run.uid}
    assert await digest_after_a_push(world, run) == "e" * 64


async def test_what_was_chosen_cannot_be_chosen_again_while_storage_is_away(
    world: World, cache: StoppableCache, monkeypatch: pytest.MonkeyPatch
):
    await world.submit(RUN)
    await settle(world, cache, RUN)
    await world.pass_over(RUN)
    world.restart()
    asked = []

    def refuse(*_: object) -> None:
        asked.append(now())
        raise Unavailable("storage is away")

    with monkeypatch.context() as patch:
        patch.setattr(KnownRuns, "choices", refuse)
        assert world.heartbeats.problem
        await world.reconciler.reconcile(RunKey(world.namespace, RUN))
        assert not asked, "a pass waits for storage that is known to be away"
        for _ in range(3):
            await world.pass_over(RUN)
        run = await world.run(RUN)
        assert run.status.resolved is None
        assert run.status.phase == "Pending"
    assert asked
    assert (await world.launched(RUN)).status.phase == "Starting"


async def test_runs_share_what_is_known_of_an_environment_since_they_were_seen(
    world: World, cache: StoppableCache, monkeypatch: pytest.MonkeyPatch
):
    """What is pushed before a run is submitted, or goes on, counts for this run."""
    asked: list[str] = []
    get = Store.get_json

    def counting(self: Store, key: str, model: Any) -> Any:
        asked.append(key)
        return get(self, key, model)

    monkeypatch.setattr(Store, "get_json", counting)
    runs = [f"flash-{number}-0a1b2c3d" for number in range(3)]
    for name in runs:
        await world.submit(name)
    for name in runs:
        await settle(world, cache, name)
    for name in runs:
        await world.pass_over(name)
    key = names.environment_latest_key((await world.run(RUN)).spec.environment.id)
    assert asked.count(key) == 1

    world.store.put_json(key, EnvironmentPointer(digest="e" * 64, size=3, pushed=now()))
    await world.submit("flash-9-0a1b2c3d")
    await settle(world, cache, "flash-9-0a1b2c3d")
    run = await world.launched("flash-9-0a1b2c3d")
    assert run.status.resolved is not None
    assert run.status.resolved.environment_digest == "e" * 64

    await world.submit("flash-8-0a1b2c3d", control={"suspend": True})
    await settle(world, cache, "flash-8-0a1b2c3d")
    await world.pass_over("flash-8-0a1b2c3d")
    world.store.put_json(key, EnvironmentPointer(digest="f" * 64, size=3, pushed=now()))
    await world.control("flash-8-0a1b2c3d", suspend=False)
    await settle(world, cache, "flash-8-0a1b2c3d")
    run = await world.launched("flash-8-0a1b2c3d")
    assert run.status.resolved is not None
    assert run.status.resolved.environment_digest == "f" * 64


async def test_nothing_is_kept_of_a_run_that_is_deleted_during_its_first_pass(
    world: World, cache: StoppableCache, monkeypatch: pytest.MonkeyPatch
):
    """What deletes it was seen before the pass ends."""
    await world.submit(RUN)
    await settle(world, cache, RUN)
    create = Cluster.create

    async def delete_first(self: Cluster, manifest: Any, *words: Any, **options: Any) -> Any:
        if manifest["kind"] == "Job":
            run = await world.cluster.get(names.KIND, world.namespace, RUN)
            await world.cluster.delete(names.KIND, world.namespace, RUN)
            world.reconciler.record_deletion(run)
        return await create(self, manifest, *words, **options)

    monkeypatch.setattr(Cluster, "create", delete_first)
    assert await world.pass_over(RUN) == UNWRITTEN_SECONDS
    await until(lambda: cache.run(RunKey(world.namespace, RUN)) is None)
    assert await world.pass_over(RUN) is None
    assert not world.reconciler._unwritten


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
    assert requests["patch flashruns"] == 0
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


async def test_a_run_begins_with_four_calls_of_storage_and_the_next_pass_needs_none(
    world: World, cache: StoppableCache, monkeypatch: pytest.MonkeyPatch
):
    """Each call takes a thread; what is in memory needs none."""
    called: list[str] = []

    async def counting(function: Callable[..., Any], *words: Any, **options: Any) -> Any:
        called.append(function.__name__)
        return await call_storage(function, *words, **options)

    for module in (observe, reconcile):
        monkeypatch.setattr(module, "call_storage", counting)
    world.known.read()  # as the first resync does
    await world.submit(RUN)
    await settle(world, cache, RUN)
    await world.pass_over(RUN)
    assert sorted(called) == ["_storage_view", "issue", "note", "write"]

    called.clear()
    await world.pod(RUN)
    for _ in range(2):  # the first one writes the status
        await settle(world, cache, RUN)
        await world.pass_over(RUN)
    assert called == []
    await Kubelet(world.cluster).start(await world.pod(RUN))
    await settle(world, cache, RUN)
    await world.pass_over(RUN)
    assert called == ["_storage_view"], "its pod may have written something"


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


async def test_a_run_of_a_chain_says_that_the_one_before_it_has_ended_without_an_adapter(
    world: World, cache: StoppableCache
):
    first = await world.submit("sums-sft-1a2b3c4d")
    await world.submit("sums-rl-5e6f7a8b", train={"epochs": 1, "initFromAdapter": first.name})
    run = await world.until("sums-rl-5e6f7a8b", lambda run: run.status.pending)
    assert run.status.pending.reason == "AdapterNotFound"
    await world.control(first.name, cancel=True)
    await world.phase(first.name, "Cancelled")
    await until(lambda: cache.phase(RunKey(world.namespace, first.name)) == "Cancelled")

    run = await world.until(
        run.name, lambda run: "ended (Cancelled) without adapter" in run.status.pending.message
    )

    assert run.status.pending.reason == "AdapterNotFound"
