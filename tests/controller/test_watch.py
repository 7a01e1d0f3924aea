"""The watches: keys come out of them, and watches that die unnoticed are begun anew."""

import asyncio
import time
from collections.abc import Callable

import pytest

from flashrun.controller import watch as watch_module
from flashrun.controller.queue import RunKey
from flashrun.controller.served_namespaces import WATCHED_KINDS
from flashrun.controller.watch import Watch
from tests.controller.stage import Kubelet, World

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
    watch = Watch(lambda: (world.namespace,), lambda: connection, seen.append)
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


async def test_runs_carry_nothing_of_the_framework(world: World):
    connection = await world.cluster.connection()
    seen: list[RunKey] = []
    watch = Watch(lambda: (world.namespace,), lambda: connection, seen.append)
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
