"""Fixtures that several layers share."""

import re
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from flashrun.store import Store
from localcluster import toolchain
from localcluster.controlplane import ControlPlane
from localcluster.steps import StepRunner
from tests.servers import Minio, install_crd, start_control_plane
from tests.short_tokens import ShortTokens, serve_short_tokens

_buckets = count(1)

SERVERS = frozenset({"minio", "control_plane", "helm", "each_helm", "prometheus", "shell"})
"""Fixtures that start a process or need a built program; what uses one tests no pure layer."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put every test that starts processes into the API tier; leave out unusual ones.

    They run when the expression of ``-m`` names their marker.
    """
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.api)
    for marker in {"slow", "verifiers", "faults", "handoff"} - set(
        re.findall(r"\w+", config.option.markexpr)
    ):
        unusual = [item for item in items if item.get_closest_marker(marker)]
        config.hook.pytest_deselected(items=unusual)
        items[:] = [item for item in items if item not in unusual]


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    """A real S3 server."""
    server = Minio(tmp_path_factory.mktemp("minio"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The programs ``prometheus`` and ``promtool``."""
    with closing(StepRunner.silent(tmp_path_factory.mktemp("steps"))) as steps:
        toolchain.debian(["prometheus"], steps)


@pytest.fixture
def store(minio: Minio) -> Store:
    """An empty bucket, with the administrator's credentials."""
    return minio.store(f"bucket-{next(_buckets)}")


@pytest.fixture(scope="session")
def short_tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShortTokens]:
    """The server that the API server asks about bearer tokens."""
    with serve_short_tokens(tmp_path_factory.mktemp("short-tokens")) as tokens:
        yield tokens


@pytest.fixture(scope="session")
def control_plane(
    tmp_path_factory: pytest.TempPathFactory, short_tokens: ShortTokens
) -> Iterator[ControlPlane]:
    """A real API server with etcd and the controllers, but no nodes."""
    folder = tmp_path_factory.mktemp("control-plane")
    running = start_control_plane(folder, short_tokens.webhook)
    yield running
    running.remove()


@pytest.fixture(scope="session")
def kubeconfig(control_plane: ControlPlane) -> Path:
    """The administrator's kubeconfig."""
    return control_plane.kubeconfig


@pytest.fixture(scope="session")
def installed(kubeconfig: Path) -> Path:
    """The kubeconfig of a cluster that knows FlashRuns, without an operator."""
    install_crd(kubeconfig)
    return kubeconfig


@pytest.fixture(scope="session", params=["helm", "helm4"])
def each_helm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in version 3, and in version 4."""
    with closing(StepRunner.silent(tmp_path_factory.mktemp("helm"))) as steps:
        return toolchain.program(request.param, steps)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program."""
    with closing(StepRunner.silent(tmp_path_factory.mktemp("helm"))) as steps:
        return toolchain.program("helm", steps)
