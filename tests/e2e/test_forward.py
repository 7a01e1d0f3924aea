"""Storage that only the cluster can reach: a laptop with nothing but a kubeconfig gets at it."""

import filecmp
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flashrun.api import names
from tests.e2e.conftest import Product

pytestmark = pytest.mark.e2e

PEOPLE, STORAGE = "forward-people", "forward-storage"
PORT = 9000
RELAY = """
import asyncio, sys

async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def serve(reader, writer):
    there = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

async def main():
    async with await asyncio.start_server(serve, "0.0.0.0", 9000) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def inside(product: Product) -> Iterator[str]:
    """An endpoint inside the cluster, and a namespace whose people are given it."""
    for namespace in (PEOPLE, STORAGE):
        product.kubectl("create", "namespace", namespace)
    host, _, port = product.access.endpoint.removeprefix("http://").partition(":")
    labels = {"app": "storage"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "storage", "labels": labels},
        "spec": {
            "containers": [
                {
                    "name": "relay",
                    "image": product.trainer_image,
                    "command": ["python3", "-c", RELAY, host, port],
                    "ports": [{"name": "s3", "containerPort": PORT}],
                    "readinessProbe": {"tcpSocket": {"port": "s3"}, "periodSeconds": 1},
                }
            ]
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "storage"},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": "s3"}]},
    }
    made = {"apiVersion": "v1", "kind": "List", "items": [pod, service]}
    product.kubectl("create", "-n", STORAGE, "-f", "-", stdin=json.dumps(made))
    product.kubectl("wait", "pod/storage", "-n", STORAGE, "--for=condition=Ready", "--timeout=120s")
    endpoint = f"http://storage.{STORAGE}.svc"
    access = product.access.model_copy(update={"endpoint": endpoint})
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": names.STORAGE_USER_SECRET},
        "stringData": {"access.json": access.model_dump_json(exclude_none=True)},
    }
    product.kubectl("create", "-n", PEOPLE, "-f", "-", stdin=json.dumps(secret))
    yield endpoint
    product.kubectl("delete", "namespace", PEOPLE, STORAGE, "--wait=false")


@pytest.fixture(scope="module")
def jane(product: Product, inside: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kubeconfig of somebody who may edit one namespace, and nothing else yet."""
    mine = ("-n", PEOPLE)
    product.kubectl("create", "serviceaccount", "jane", *mine)
    who = f"--serviceaccount={PEOPLE}:jane"
    product.kubectl("create", "rolebinding", "jane", "--clusterrole=edit", who, *mine)
    config = yaml.safe_load(product.local.kubeconfig.read_text())
    token = product.kubectl("create", "token", "jane", *mine).strip()
    config["users"][0]["user"] = {"token": token}
    path = tmp_path_factory.mktemp("jane") / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def test_without_the_right_the_sentence_says_who_gives_it(product: Product, jane: Path) -> None:
    done = product.flash("env", "list", "-n", PEOPLE, check=False, KUBECONFIG=str(jane))

    assert done.returncode == 1
    assert "binds the ClusterRole flashrun-storage-forward" in done.stderr


def test_megabytes_go_through_the_api_server_and_come_back(
    product: Product, jane: Path, inside: str, tmp_path: Path
) -> None:
    who = f"--serviceaccount={PEOPLE}:jane"
    role = "--clusterrole=flashrun-storage-forward"
    product.kubectl("create", "rolebinding", "forward", role, who, "-n", STORAGE)
    folder = tmp_path / "noise"
    folder.mkdir()
    (folder / "environment.py").write_text("def load_environment(): ...\n")
    (folder / "noise.bin").write_bytes(os.urandom(20_000_000))
    name = product.new_name("forward-people/noise")

    def flash(*words: str) -> str:
        return product.flash(*words, "-n", PEOPLE, KUBECONFIG=str(jane)).stdout

    assert flash("env", "push", str(folder), "--name", name) == f"{name}\n"
    flash("env", "pull", name, str(tmp_path / "back"))
    assert filecmp.cmp(folder / "noise.bin", tmp_path / "back" / "noise.bin", shallow=False)
    assert flash("env", "delete", name, "-y") == f"{name}\n"
    assert name not in flash("env", "list", "-o", "name").split()
