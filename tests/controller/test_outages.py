"""Outages of a control plane of its own: the operator process lives on and finds its way back."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flashrun.cluster import Cluster
from flashrun.store import Store
from localcluster.controlplane import ControlPlane
from localcluster.steps import StepRunner
from tests.controller.conftest import Operators
from tests.controller.stage import World, platform, push_environment, wait_for_phase
from tests.servers import install_crd, kubectl, start_control_plane

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

            # Longer: it has to let go; the kubelet starts it again, and it waits.
            fragile.daemons.stop("kube-apiserver")
            assert await asyncio.to_thread(process.wait, 60) == 1
            again = operators.start()
            await asyncio.sleep(3)
            assert again.poll() is None
            restart(fragile)
            await world.submit("flash-2-after")
            await wait_for_phase(world, "flash-2-after", "Starting", 60)
        finally:
            operators.stop()
