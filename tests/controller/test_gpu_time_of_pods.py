"""GPU time in the records agrees with the times of the pods, with a real API server."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.reasons import Phase
from flashrun.api.run_record import RunRecord
from flashrun.api.times import format_time, parse_time
from tests.controller.stage import Kubelet, World, now

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"


def record(world: World, uid: str) -> Any:
    prefix = names.run_prefix(world.namespace, RUN, uid)
    return world.store.get_json(names.run_record_key(prefix), RunRecord).to_run()


def held(pod: dict[str, Any]) -> timedelta:
    """For how long a pod has held its GPU, by its own times."""
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    ended: datetime = parse_time(state["finishedAt"])
    return ended - parse_time(pod["status"]["startTime"])


async def end_pod(world: World, code: int, minutes: float) -> dict[str, Any]:
    """End the active pod, which a kubelet took on so many minutes ago; return it."""
    pod = await world.pod(RUN)
    accepted = format_time(now() - timedelta(minutes=minutes))
    worked = timedelta(minutes=minutes / 2)  # the rest went into downloads
    await Kubelet(world.cluster).end(pod, code, worked=worked, startTime=accepted)
    found = await world.cluster.get("Pod", world.namespace, pod["metadata"]["name"])
    await world.until(RUN, lambda run: run.status.attempts and run.status.attempts[-1].end)
    return found


async def test_the_record_of_a_run_has_the_time_of_its_pods_within_one_percent(
    world: World,
) -> None:
    uid = (await world.submit(RUN)).uid
    await world.until(RUN, lambda run: run.status.resolved)
    pods = [await end_pod(world, Exit.INTERRUPTED_SAVED, 7)]
    after_one = record(world, uid).status.gpu_seconds
    assert after_one == pytest.approx(held(pods[0]).total_seconds(), rel=0.01)
    pods.append(await end_pod(world, Exit.DATA, 11))
    await world.phase(RUN, Phase.FAILED)
    expected = sum(held(pod).total_seconds() for pod in pods)
    assert record(world, uid).status.gpu_seconds == pytest.approx(expected, rel=0.01)


async def test_the_record_of_a_deleted_run_has_the_time_until_its_deletion(world: World) -> None:
    uid = (await world.submit(RUN)).uid
    await world.until(RUN, lambda run: run.status.resolved)
    pod = await world.pod(RUN)
    accepted = format_time(now() - timedelta(minutes=20))
    running = {"running": {"startedAt": format_time(now() - timedelta(minutes=10))}}
    await Kubelet(world.cluster).say(pod, "Running", running, startTime=accepted)
    await world.until(RUN, lambda run: run.status.attempts)
    manifest = await world.cluster.get(names.KIND, world.namespace, RUN)
    await world.cluster.delete(names.KIND, world.namespace, RUN)
    await asyncio.to_thread(world.reconciler.record_deletion, manifest)
    assert record(world, uid).status.gpu_seconds == pytest.approx(20 * 60, rel=0.01)
