"""The fixtures of the operator's tests, and the scene in which faults happen."""

from collections.abc import Iterator

import pytest

from localcluster.controlplane import ControlPlane
from tests.controller.conftest import Operators, cluster, make_world, namespace, operators, world
from tests.controller.stage import World
from tests.faults.scene import Scene
from tests.servers import Minio

__all__ = ["cluster", "make_world", "namespace", "operators", "world"]


@pytest.fixture
def scene(
    operators: Operators, world: World, control_plane: ControlPlane, minio: Minio
) -> Iterator[Scene]:
    """Runs of one namespace, their operators, and the servers whose ways can be disturbed."""
    scene = Scene(world, operators, control_plane, minio)
    yield scene
    scene.close()
