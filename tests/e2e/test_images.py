"""What is kept of images: everything that may run again, and nothing that cannot."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from localcluster import folders, images, lifecycle
from localcluster.cluster_kind import ClusterKind
from localcluster.node import PAUSE
from tests.e2e.conftest import SYSTEM, Product

pytestmark = pytest.mark.e2e

OLD = "127.0.0.1:1/flashrun/trainer:old"


@pytest.fixture(autouse=True)
def on_the_local_cluster(product: Product) -> None:
    if product.local.kind is not ClusterKind.LOCAL:
        pytest.skip("what other clusters keep is not ours to remove")


def ctr(*words: str) -> list[str]:
    """What containerd says."""
    socket = folders.sockets() / "containerd.sock"
    argv = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def old_image(product: Product) -> Iterator[None]:
    """An image of ours that nothing in the cluster names."""
    ctr("tag", "--force", PAUSE, OLD)
    yield
    ctr("remove", OLD)


@pytest.mark.usefixtures("old_image")
def test_the_node_forgets_old_images_and_keeps_those_in_use(product: Product) -> None:
    where = ("-n", SYSTEM, "-o", "jsonpath={.spec.template.spec.containers[0].image}")
    used = {
        product.kubectl("get", "deployment/flashrun", *where),
        product.kubectl("get", "job/tiny-model", *where),
    }
    assert OLD in ctr("list", "-q")
    lifecycle.delete_unused_images([], product.steps)
    kept = ctr("list", "-q")

    assert OLD not in kept
    assert used | {PAUSE} <= set(kept)


@pytest.mark.parametrize("name", images.DOCKERFILES)
def test_what_was_built_last_is_still_there_for_the_next_build(name: str) -> None:
    assert images.image_exists(images.local_name(name))


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [("operator", {"flashrun", "kopf"}, {"torch"}), ("trainer", {"flashrun", "torch"}, {"kopf"})],
)
def test_an_image_lists_its_packages_and_not_the_program_that_lists_them(
    product: Product, name: str, has: set[str], lacks: set[str]
) -> None:
    listed = json.loads(images.read_sbom(product.local, name, product.steps))
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    packages = {component["name"] for component in listed["components"]}
    assert has <= packages
    assert not packages & (lacks | {"cyclonedx-bom"})


LOADED_BLAS = """
import torch
torch.rand(64, 64) @ torch.rand(64, 64)
with open("/proc/self/maps") as maps:
    print(*sorted({line.split()[-1] for line in maps if "blas" in line}))
"""


def test_matrix_products_in_the_trainer_image_are_openblas(product: Product) -> None:
    """The reference BLAS that Debian's PyTorch comes with takes some 20 times as long."""
    product.start_in_trainer_image("loaded-blas", {}, "python3", "-c", LOADED_BLAS)
    assert "openblas" in product.output_of("loaded-blas")
