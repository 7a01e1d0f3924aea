"""The GPU time of namespaces, by statuses and by the operator's records, with a real API server."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.platform import BudgetSettings
from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.api.run_record import RunRecord
from flashrun.api.times import format_time
from flashrun.controller import namespace_usage
from flashrun.controller.namespace_usage import NamespaceUsage
from flashrun.plan import gpu_time
from flashrun.plan.gpu_time import month_start
from tests.controller.stage import Kubelet, World, now

pytestmark = pytest.mark.api
FIRST, SECOND, THIRD = "flash-1-aaaa0001", "flash-1-aaaa0002", "flash-1-aaaa0003"


@pytest.fixture(autouse=True)
def far_border(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let months begin on the 11th while a calendar month begins or ends."""

    def shifted(moment: datetime) -> datetime:
        return month_start(moment - timedelta(days=10)) + timedelta(days=10)

    if not 3 < now().day < 28:
        for module in (gpu_time, namespace_usage):
            monkeypatch.setattr(module, "month_start", shifted)


@pytest.fixture
def limited(world: World) -> World:
    """A world whose namespace may use one GPU hour in a month."""
    budget = BudgetSettings(gpu_hours_per_month=1)
    world.platform = world.platform.replace(budgets={world.namespace: budget})
    world.restart()
    return world


async def hold(world: World, run: str, minutes: float) -> dict[str, Any]:
    """Let the pod of a run hold its GPU for so many minutes by now, on a node."""
    await world.until(run, lambda found: found.status.resolved)
    pod = await world.pod(run)
    await world.bind(pod, "node-1")  # on a node, a pod has time to end
    begun = now() - timedelta(minutes=minutes)
    running = {"running": {"startedAt": format_time(begun)}}
    await Kubelet(world.cluster).say(pod, "Running", running, startTime=format_time(begun))
    await world.until(run, lambda found: found.status.attempts)
    return pod


async def used(world: World) -> float:
    """Minutes that a new operator finds, which has seen nothing itself."""
    budgets = world.platform.budgets
    usage = NamespaceUsage(world.operators_cluster, world.store, budgets)
    found = await usage.budget(world.namespace)
    assert found is not None
    assert found.problem == ""
    return found.used_seconds / 60


async def test_a_namespace_without_a_budget_is_not_counted(world: World) -> None:
    usage = NamespaceUsage(world.operators_cluster, world.store, {})
    assert await usage.budget(world.namespace) is None


async def test_runs_that_go_on_that_ended_and_that_were_deleted_count(limited: World) -> None:
    await limited.submit(FIRST)
    await hold(limited, FIRST, 10)
    assert await used(limited) == pytest.approx(10, abs=0.5)

    await limited.submit(SECOND)
    await hold(limited, SECOND, 20)
    manifest = await limited.cluster.get(names.KIND, limited.namespace, SECOND)
    await limited.cluster.delete(names.KIND, limited.namespace, SECOND)
    limited.reconciler.record_deletion(manifest)
    assert await used(limited) == pytest.approx(30, abs=0.5)

    # What code in the run's pods may write changes nothing.
    prefix = names.run_prefix(limited.namespace, SECOND, manifest["metadata"]["uid"])
    key = names.run_record_key(prefix)
    forged = limited.store.get_json(key, RunRecord)
    limited.store.put_json(key, forged.replace(status={"phase": "Cancelled"}))
    assert await used(limited) == pytest.approx(30, abs=0.5)


async def test_at_the_end_of_the_month_s_hours_runs_pause_and_new_ones_wait_and_go_on_later(
    limited: World,
) -> None:
    await limited.submit(FIRST)
    pod = await hold(limited, FIRST, 70)
    await limited.submit(SECOND)
    waiting = await limited.until(SECOND, lambda run: run.status.pending)
    assert waiting.status.pending is not None
    assert waiting.status.pending.reason is Reason.NAMESPACE_BUDGET_USED_UP
    assert await limited.jobs(SECOND) == []

    await limited.pass_over(FIRST)
    job = await limited.job(FIRST)
    assert job["spec"]["suspend"]
    await Kubelet(limited.cluster).end(pod, 40, worked=timedelta(minutes=70))
    await limited.cluster.delete("Pod", limited.namespace, pod["metadata"]["name"], grace_seconds=0)
    paused = await limited.phase(FIRST, Phase.SUSPENDED)
    ready = paused.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.NAMESPACE_BUDGET_USED_UP

    limited.restart()  # another operator finds the same
    await limited.submit(THIRD)
    await limited.until(THIRD, lambda run: run.status.pending)
    assert await limited.jobs(THIRD) == []

    this_month = namespace_usage.month_start(now())
    limited.ahead = namespace_usage.month_start(this_month + timedelta(days=32)) - now()
    limited.restart()
    run = await limited.until(FIRST, lambda run: run.status.phase != Phase.SUSPENDED)
    assert run.status.resolved is not None
    newest = await limited.job(FIRST, run.status.resolved.job)  # another one after a deadline
    assert not newest["spec"].get("suspend")
    for name in (SECOND, THIRD):
        await limited.until(name, lambda run: run.status.resolved)
