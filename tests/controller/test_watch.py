"""The watches: keys come out of them, and watches that die unnoticed are begun anew."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kopf._cogs.structs.references import Insights

from flashrun.api import names
from flashrun.controller import watch as watch_module
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.queue import RunKey
from flashrun.controller.watch import Watch
from flashrun.controller.watched_objects import WATCHED_KINDS
from flashrun.kubeconfig import Kubeconfig
from localcluster.controlplane import ControlPlane
from tests.controller.stage import Kubelet, World, flash_run
from tests.kubeconfigs import WAYS_IN, read_config

pytestmark = pytest.mark.api


async def until(ready: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def test_a_watch_that_dies_unnoticed_is_begun_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch_module, "PULSE_SECONDS", 0.2)
    monkeypatch.setattr(watch_module, "_START_SECONDS", 2.0)
    seen: list[RunKey] = []
    connection = await world.cluster.connection()
    watch = Watch(lambda: (world.namespace,), lambda: connection, lambda key, _: seen.append(key))
    watch.start()
    try:
        await until(lambda: watch._watchers() == len(WATCHED_KINDS))
        await world.submit("flash-1-seen")
        await until(lambda: RunKey(world.namespace, "flash-1-seen") in seen)
        await world.phase("flash-1-seen", "Starting")
        pod = await world.pod("flash-1-seen")
        seen.clear()
        await Kubelet(world.cluster).start(pod)
        await until(lambda: RunKey(world.namespace, "flash-1-seen") in seen)

        loop = watch._loop
        assert loop is not None
        for task in asyncio.all_tasks(loop):
            if task.get_name().startswith("watcher for flashruns"):
                loop.call_soon_threadsafe(task.cancel)
        await until(lambda: watch._watchers() == len(WATCHED_KINDS) - 1)
        await world.submit("flash-2-unseen")
        await until(lambda: RunKey(world.namespace, "flash-2-unseen") in seen, 30)
        assert watch.problem() == ""
    finally:
        watch.stop()
        await until(lambda: not watch._thread.is_alive(), 30)


@pytest.mark.parametrize(
    ("deaf_to", "why"),
    [(0, "it does not end when it is asked"), (2, "its tasks go on after two cancellations")],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_watches_that_do_not_end_are_begun_anew(
    monkeypatch: pytest.MonkeyPatch, deaf_to: int, why: str
) -> None:
    """kopf, played: after an error of one watch it waits for the others, which may go on."""
    monkeypatch.setattr(watch_module, "PULSE_SECONDS", 0.1)
    monkeypatch.setattr(watch_module, "_START_SECONDS", 0.3)
    monkeypatch.setattr(watch_module, "_END_SECONDS", 0.3)
    begun: list[int] = []

    async def operator(**_: Any) -> None:
        begun.append(deaf_to)
        for _attempt in range(deaf_to):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        await asyncio.sleep(60)

    monkeypatch.setattr("kopf.operator", operator)
    watch = Watch(lambda: ("team-a",), lambda: pytest.fail("asked"), lambda key, _: None)
    watch.start()
    try:
        await until(lambda: len(begun) > 1)
    finally:
        watch.stop()
    await until(lambda: not watch._thread.is_alive())


async def test_namespaces_that_come_and_go_hide_no_watch_that_died() -> None:
    watch = Watch(lambda: (), lambda: pytest.fail("it connects"), lambda key, _: None)
    watch._thread, watch._loop = threading.main_thread(), asyncio.get_running_loop()
    watch._started = time.monotonic() - 2 * watch_module._START_SECONDS
    watch._since = {"team": watch._started}
    places = [f"{kind}@{name}" for kind in WATCHED_KINDS for name in ("team", "brief")]
    watchers = [
        asyncio.create_task(asyncio.sleep(60), name=f"watcher for {place}") for place in places
    ]
    try:
        for wanted in (("team",), ("team", "brief"), ("team",)):
            await watch._follow(wanted, Insights())
            assert watch.problem() == ""
        watchers[0].cancel()
        await asyncio.sleep(0)
        for wanted in (("team", "brief"), ("team",)):
            await watch._follow(wanted, Insights())
            assert watch.problem() == "2 of 3 watches are alive"
    finally:
        for watcher in watchers:
            watcher.cancel()


async def test_runs_carry_nothing_of_the_framework(world: World):
    connection = await world.cluster.connection()
    seen: list[RunKey] = []
    watch = Watch(lambda: (world.namespace,), lambda: connection, lambda key, _: seen.append(key))
    watch.start()
    try:
        await world.submit("flash-1-clean")
        await until(lambda: seen)
        await asyncio.sleep(1)
        found = await world.cluster.get("FlashRun", world.namespace, "flash-1-clean")
        assert "annotations" not in found["metadata"]
        assert "finalizers" not in found["metadata"]
    finally:
        watch.stop()
        await until(lambda: not watch._thread.is_alive(), 30)


@pytest.mark.parametrize("kept", ["no JSON", "[]", '{"spec": 3}'])
async def test_annotations_of_kopf_that_others_wrote_stop_no_run(world: World, kept: str):
    connection = await world.cluster.connection()
    seen: list[RunKey] = []
    watch = Watch(lambda: (world.namespace,), lambda: connection, lambda key, _: seen.append(key))
    watch.start()
    try:
        run = flash_run(world.namespace, "flash-1-marked")
        marks = ("last-handled-configuration", "touch-dummy")
        run["metadata"]["annotations"] = {f"kopf.zalando.org/{mark}": kept for mark in marks}
        await world.cluster.create(run)
        key = RunKey(world.namespace, "flash-1-marked")
        await until(lambda: key in seen)
        seen.clear()
        await world.control("flash-1-marked", suspend=True)
        await until(lambda: key in seen)  # kopf would leave the object alone for a while
    finally:
        watch.stop()
        await until(lambda: not watch._thread.is_alive(), 30)


async def test_what_kopf_reads_goes_through_none_of_its_tasks_for_objects(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """kopf copies and compares each object that it is given: most of what watching would cost."""

    async def refuse(**_: object) -> None:
        raise AssertionError("kopf was given an object")

    monkeypatch.setattr("kopf._core.reactor.processing.process_resource_event", refuse)
    cache, seen = ObjectCache(), list[RunKey]()
    connection = await world.cluster.connection()
    await world.submit("flash-1-listed")
    watch = Watch(
        lambda: (world.namespace,), lambda: connection, lambda key, _: seen.append(key), cache=cache
    )
    watch.start()
    try:
        await until(lambda: cache.is_listed(world.namespace))
        await until(lambda: RunKey(world.namespace, "flash-1-listed") in seen)
        await world.submit("flash-2-watched")
        await until(lambda: RunKey(world.namespace, "flash-2-watched") in seen)
        for name in ("flash-1-listed", "flash-2-watched"):
            known = cache.run(RunKey(world.namespace, name))
            assert known is not None
            found = await world.cluster.get(names.KIND, world.namespace, name)
            assert known["spec"] == found["spec"]
        await world.cluster.delete(names.KIND, world.namespace, "flash-1-listed")
        await until(lambda: cache.run(RunKey(world.namespace, "flash-1-listed")) is None)
    finally:
        watch.stop()
        await until(lambda: not watch._thread.is_alive(), 30)


async def test_a_run_that_has_ended_is_not_due_at_the_start_nor_when_it_is_labelled(world: World):
    await world.submit("flash-1-ended", model="nobody/knows-it")
    await world.phase("flash-1-ended", "Failed")
    cache, seen = ObjectCache(), list[RunKey]()
    connection = await world.cluster.connection()
    watch = Watch(
        lambda: (world.namespace,), lambda: connection, lambda key, _: seen.append(key), cache=cache
    )
    watch.start()
    try:
        await until(lambda: cache.is_listed(world.namespace))
        body = {"metadata": {"labels": {"a": "b"}}}
        await world.cluster.patch(names.KIND, world.namespace, "flash-1-ended", body)
        await world.submit("flash-2-live")
        await until(lambda: RunKey(world.namespace, "flash-2-live") in seen)
        assert RunKey(world.namespace, "flash-1-ended") not in seen
        assert cache.is_settled(RunKey(world.namespace, "flash-1-ended"))
    finally:
        watch.stop()
        await until(lambda: not watch._thread.is_alive(), 30)


# --- the kubeconfig of an operator outside its cluster --------------------------------------------


@pytest.mark.parametrize("change", WAYS_IN, ids=lambda change: change.__name__)
async def test_watches_honour_the_whole_kubeconfig(
    world: World, control_plane: ControlPlane, tmp_path: Path, change: Callable[..., Any]
):
    config, path = read_config(control_plane.kubeconfig), tmp_path / "kubeconfig"
    cache, seen = ObjectCache(), list[RunKey]()
    async with change(config, control_plane):
        path.write_text(yaml.safe_dump(config))
        login = await Kubeconfig.load(str(path))
        watch = Watch(
            lambda: (world.namespace,),
            lambda: login.connection,
            lambda key, _: seen.append(key),
            cache=cache,
        )
        watch.start()
        try:
            await until(lambda: cache.is_listed(world.namespace))
            await world.submit("flash-1-seen")
            await until(lambda: RunKey(world.namespace, "flash-1-seen") in seen)
        finally:
            watch.stop()
            await until(lambda: not watch._thread.is_alive(), 30)
