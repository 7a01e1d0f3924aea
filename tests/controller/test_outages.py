"""Outages of a control plane or a store: the operator process lives on and finds its way back."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flashrun.api.platform import EnvironmentSettings
from flashrun.cluster import Cluster
from flashrun.controller.lease import LEASE_SECONDS
from flashrun.store import Store
from localcluster.controlplane import ControlPlane
from localcluster.steps import StepRunner
from tests.controller.conftest import Operators
from tests.controller.other_tenant import OtherTenant, stretched
from tests.controller.stage import (
    ENVIRONMENT,
    World,
    platform,
    push_environment,
    wait_for_phase,
)
from tests.servers import Minio, install_crd, kubectl, start_control_plane

pytestmark = pytest.mark.api
NAMESPACE = "team-o"


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = start_control_plane(tmp_path / "plane")
    yield plane
    plane.remove()


def restart(plane: ControlPlane) -> None:
    with closing(StepRunner.silent(plane.folder)) as steps:
        plane.start(steps)


async def test_an_api_server_that_goes_away_or_hangs_is_waited_for(
    fragile: ControlPlane, store: Store, tmp_path: Path
):
    kubeconfig = fragile.kubeconfig
    kubectl(kubeconfig, "create", "namespace", NAMESPACE)
    push_environment(store)
    async with await Cluster.login(kubeconfig) as cluster:
        world = World(cluster, store, platform(NAMESPACE, store.access), kubeconfig)
        operators = Operators(tmp_path, kubeconfig, world)
        try:
            process = operators.start()
            operators.wait(lambda: "flashrun chart" in operators.logs())
            assert operators.ask(process, "/readyz")[0] == 503
            install_crd(kubeconfig)
            operators.wait(lambda: operators.leads(process))
            await world.submit("flash-0-before")
            await wait_for_phase(world, "flash-0-before", "Starting")

            # Shorter than the lease's hold: the same process goes on.
            server = fragile.daemons.pid("kube-apiserver")
            assert server is not None
            os.kill(server, signal.SIGSTOP)
            await asyncio.sleep(4)
            os.kill(server, signal.SIGCONT)
            await world.submit("flash-1-after")
            await wait_for_phase(world, "flash-1-after", "Starting", 30)
            assert process.poll() is None

            # Longer: it writes nothing, and goes on, because nobody else has the lease.
            fragile.daemons.stop("kube-apiserver")
            operators.wait(lambda: not operators.leads(process), 60)
            await asyncio.sleep(15)
            assert process.poll() is None
            assert operators.ask(process, "/healthz")[0] == 200
            restart(fragile)
            operators.wait(lambda: operators.leads(process), 60)
            await world.submit("flash-2-after")
            await wait_for_phase(world, "flash-2-after", "Starting", 60)
            assert process.poll() is None
            assert "this replica goes on" in operators.logs()

            # An operator that cannot reach it from the start waits for it.
            fragile.daemons.stop("kube-apiserver")
            again = operators.start()
            await asyncio.sleep(3)
            assert again.poll() is None
        finally:
            operators.stop()


@pytest.fixture
def fragile_store(tmp_path: Path) -> Iterator[Minio]:
    server = Minio(tmp_path / "store")
    server.start()
    yield server
    server.stop()


@contextlib.contextmanager
def hanging(server: Minio) -> Iterator[None]:
    """Let the store accept connections and answer nothing."""
    pid = server.daemons.pid("minio")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def storage_world(fragile_store: Minio, world: World) -> World:
    """The world of other tests, with a store of its own and another team beside it."""
    store = fragile_store.store("fragile")
    push_environment(store)
    teams = (world.namespace, f"{world.namespace}-beside")
    kubectl(world.kubeconfig, "create", "namespace", teams[1])
    owners = EnvironmentSettings(owners={ENVIRONMENT.partition("/")[0]: teams})
    settings = platform(world.namespace, store.access)
    settings = settings.replace(namespaces=teams, environments=owners)
    return World(world.cluster, store, settings, world.kubeconfig)


def beside(world: World) -> World:
    """The world of the other team."""
    settings = world.platform.replace(namespaces=world.platform.namespaces[1:])
    return World(world.cluster, world.store, settings, world.kubeconfig)


async def test_a_store_that_hangs_costs_neither_the_lease_nor_the_status_of_runs(
    fragile_store: Minio, storage_world: World, tmp_path: Path
):
    world = storage_world
    operators = Operators(tmp_path, world.kubeconfig, world)
    try:
        process = operators.start()
        operators.wait(lambda: operators.ask(process, "/readyz")[0] == 200)
        operators.wait(lambda: operators.leads(process))
        there = beside(world)
        await OtherTenant(there, operators, process).is_served()
        other = OtherTenant(there, operators, process)
        with hanging(fragile_store):
            runs = [f"flash-{number}-hanging" for number in range(12)]
            for name in runs:
                await world.submit(name)
            for name in runs:
                await wait_for_reason(world, name, "StorageUnavailable", 90)
            assert process.poll() is None
            assert operators.leads(process)
            assert operators.ask(process, "/healthz")[0] == 200
        for name in runs:
            await wait_for_phase(world, name, "Starting", stretched(90))
        await other.is_served()
        assert "the lease is lost" not in operators.logs()
    finally:
        operators.stop()


async def test_a_store_that_hangs_at_the_start_is_waited_for_with_the_lease(
    fragile_store: Minio, storage_world: World, tmp_path: Path
):
    world = storage_world
    await world.submit("flash-0-early")
    operators = Operators(tmp_path, world.kubeconfig, world)
    try:
        with hanging(fragile_store):
            process = operators.start()
            operators.wait(lambda: operators.leads(process))
            for _ in range(2 * LEASE_SECONDS):
                await asyncio.sleep(1)
                assert process.poll() is None
                assert operators.leads(process)
                assert operators.ask(process, "/readyz")[0] == 503
                assert operators.ask(process, "/healthz")[0] == 200
            await wait_for_reason(world, "flash-0-early", "StorageUnavailable", 30)
        operators.wait(lambda: operators.ask(process, "/readyz")[0] == 200, 90)
        await wait_for_phase(world, "flash-0-early", "Starting", 60)
        await OtherTenant(beside(world), operators, process).is_served()
        assert "the lease is lost" not in operators.logs()
    finally:
        operators.stop()


async def test_an_operator_ends_at_once_while_its_store_hangs(
    fragile_store: Minio, storage_world: World, tmp_path: Path
):
    operators = Operators(tmp_path, storage_world.kubeconfig, storage_world)
    try:
        process = operators.start()
        operators.wait(lambda: operators.ask(process, "/readyz")[0] == 200)
        operators.wait(lambda: operators.leads(process))
        with hanging(fragile_store):
            await storage_world.submit("flash-0-hanging")
            await asyncio.sleep(5)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 5) == 0
    finally:
        operators.stop()


async def wait_for_reason(world: World, name: str, reason: str, seconds: float) -> None:
    """Wait until a run is pending for ``reason``."""
    end = time.monotonic() + seconds
    while (pending := (await world.run(name)).status.pending) is None or pending.reason != reason:
        assert time.monotonic() < end, pending
        await asyncio.sleep(0.2)
