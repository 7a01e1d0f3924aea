"""One whole life, on a cluster of somebody else: install, train, upgrade, roll back, uninstall.

The product is installed with ``CLUSTER=current`` from another folder, which knows nothing of the
local cluster but a kubeconfig, a registry and an S3 endpoint. Around the run is what companies
have: a webhook that adds containers which never end, a quota on limits, users of any number,
tokens that are valid for 20 seconds, and a proxy before the API server.

What the other modules use is uninstalled first: only ``test_your_own_cluster`` comes later.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from localcluster import lifecycle
from tests.e2e import environments
from tests.e2e.conftest import NAMESPACE, ROOT, SYSTEM, Product
from tests.e2e.gateway import serve_gateway
from tests.e2e.other_folder import OtherFolder
from tests.injector import NATIVE_SIDECAR, SIDECAR, mesh, serve_injector
from tests.short_tokens import ShortTokens, serve_short_tokens
from tests.store.forward_proxy import ForwardProxy, forward_proxy

pytestmark = pytest.mark.e2e

USER = 1000680000
"""A user as OpenShift chooses them."""
TOKEN_SECONDS = 20
POOL = {"name": "local", "vram": 80, "cpu": "100m", "cpuLimit": "2", "memory": "2Gi"}
VALUES = {
    "pools": [{**POOL, "ephemeralStorage": "3Gi"}],
    "operator": {"runAsUser": USER},
    "trainer": {"runAsUser": USER, "sharedMemory": "256Mi",
                "environment": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def other(product: Product, tmp_path_factory: pytest.TempPathFactory) -> OtherFolder:
    """The product, installed anew from another folder; that of the other tests is gone."""
    made = OtherFolder(product, tmp_path_factory.mktemp("other"))
    product.kubectl("delete", "flashruns", "--all", "--all-namespaces", "--timeout=180s")
    made.helm("uninstall", "flashrun")
    made.install(VALUES)
    return made


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShortTokens]:
    """Tokens that are valid for seconds."""
    with serve_short_tokens(tmp_path_factory.mktemp("tokens")) as served:
        yield served


@pytest.fixture(scope="module")
def way_in(
    product: Product, tokens: ShortTokens, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, ForwardProxy]]:
    """A kubeconfig whose tokens are short and whose way is through a proxy; and the proxy."""
    folder = tmp_path_factory.mktemp("way")
    administrator = product.local.kubeconfig
    with (
        serve_gateway(tokens, administrator, folder) as gateway,
        forward_proxy(f"127.0.0.1:{gateway.port}") as proxy,
    ):
        path = tokens.kubeconfig(administrator, folder / "kubeconfig", "life", TOKEN_SECONDS)
        config = yaml.safe_load(path.read_text())
        config["clusters"][0]["cluster"] = {
            "server": f"https://127.0.0.1:{gateway.port}",
            "certificate-authority-data": gateway.certificate,
            "proxy-url": f"http://127.0.0.1:{proxy.port}",
        }
        path.write_text(yaml.safe_dump(config))
        yield path, proxy


@pytest.fixture(scope="module")
def company(
    product: Product, other: OtherFolder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A webhook that adds a container, and a quota that counts limits."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "life"},
        "spec": {"hard": {"limits.cpu": "5", "limits.ephemeral-storage": "1e10", "pods": "2",
                          "requests.nvidia.com/gpu": "1k"}},
    }  # fmt: skip
    change = mesh(product.trainer_image, SIDECAR, NATIVE_SIDECAR)
    with serve_injector(NAMESPACE, tmp_path_factory.mktemp("mesh"), change) as webhook:
        made = json.dumps({"apiVersion": "v1", "kind": "List", "items": [quota, webhook]})
        product.kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=made)
        yield
        product.kubectl("delete", "-n", NAMESPACE, "-f", "-", "--ignore-not-found", stdin=made)


def long_config(folder: Path) -> Path:
    train = {"max_steps": 1200, "epochs": 1200, "save_every": 50}
    return environments.config(folder, "examples/sums", "sft", train=train)


@pytest.fixture(scope="module")
def life(
    product: Product,
    other: OtherFolder,
    company: None,
    way_in: tuple[Path, ForwardProxy],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What is left of a run that was followed to its end; its operator came and went back."""
    config = long_config(tmp_path_factory.mktemp("life"))
    before = {item["metadata"]["name"] for item in runs(product)}
    words = [sys.executable, "-m", "flashrun.cli.main", "train", str(config)]
    began = time.monotonic()
    following = subprocess.Popen(
        words,
        env={**product.environment, "PYTHONPATH": str(ROOT / "operator" / "src"),
             "KUBECONFIG": str(way_in[0])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    product.wait_until(lambda: len(runs(product)) > len(before), "the run")
    [run] = {item["metadata"]["name"] for item in runs(product)} - before
    product.wait(run, lambda status: status.get("checkpointCount", 0) >= 1, "checkpoint")
    pods = json.loads(product.kubectl("get", "pods", "-l", f"flashrun.dev/run={run}", "-ojson"))
    chart = str(other.folder / "charts" / "flashrun")
    mark = ("--reuse-values", "--set", "operator.podAnnotations.life=second")
    other.helm("upgrade", "flashrun", chart, *mark)
    upgraded_at = product.status(run)["progress"]["step"]
    other.helm("rollback", "flashrun")
    other.helm("test", "flashrun")
    status = product.end(run, "Succeeded")
    output, _ = following.communicate(timeout=120)
    return {
        "run": run,
        "status": status,
        "pods": pods["items"],
        "code": following.returncode,
        "output": output,
        "upgraded_at": upgraded_at,
        "seconds": time.monotonic() - began,
    }


def runs(product: Product) -> list[dict[str, Any]]:
    found = json.loads(product.kubectl("get", "flashruns", "-n", NAMESPACE, "-ojson"))
    items: list[dict[str, Any]] = found["items"]
    return items


def test_a_run_is_followed_through_short_tokens_and_a_proxy_to_its_end(
    life: dict[str, Any], tokens: ShortTokens, way_in: tuple[Path, ForwardProxy]
) -> None:
    assert life["code"] == 0, life["output"][-3000:]
    assert life["run"] in life["output"]
    assert len(tokens.accepted["life"]) >= max(2, life["seconds"] // TOKEN_SECONDS)
    assert way_in[1].hosts == {"127.0.0.1"}


def test_an_upgrade_and_a_rollback_do_not_interrupt_a_run(life: dict[str, Any]) -> None:
    status = life["status"]
    assert life["upgraded_at"] < status["progress"]["totalSteps"]
    assert len(status["attempts"]) == 1
    assert status["resolved"]["job"] == 0


def test_a_container_that_never_ends_keeps_neither_pod_nor_gpu(
    product: Product, life: dict[str, Any]
) -> None:
    [pod] = life["pods"]
    assert [box["name"] for box in pod["spec"]["containers"]] == [SIDECAR, "trainer"]
    assert pod["spec"]["initContainers"][0]["name"] == NATIVE_SIDECAR
    assert pod["spec"]["securityContext"]["runAsUser"] == USER

    def used() -> dict[str, str]:
        found = json.loads(product.kubectl("get", "quota", "life", "-n", NAMESPACE, "-ojson"))
        amounts: dict[str, str] = found["status"]["used"]
        return amounts

    product.wait_until(lambda: used()["requests.nvidia.com/gpu"] == "0", "the GPU", 120)
    assert used()["limits.cpu"] == "0"


ENDED = (
    '{.metadata.name}{"="}{.status.initContainerStatuses[?(@.name=="'
    + NATIVE_SIDECAR
    + '")].state.terminated.exitCode}{"\\n"}'
)
"""The name of a pod, and what its native sidecar has ended with."""


ADDED = {"native": (NATIVE_SIDECAR,), "both": (SIDECAR, NATIVE_SIDECAR)}
"""What the webhook adds to a run's pod."""


class Beside(NamedTuple):
    """A run beside added containers, and what its pods' native sidecars have ended with."""

    run: str
    seen: set[str]


@pytest.fixture(scope="module")
def failed(
    product: Product, life: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Beside]:
    """Runs whose reward raises, side by side, each beside other containers."""
    folder = environments.write(
        tmp_path_factory.mktemp("mesh") / "environment", environments.RAISING_REWARD
    )
    product.flash("env", "push", str(folder), "--name", "examples/beside-a-mesh")
    watches: dict[str, subprocess.Popen[str]] = {}
    runs: dict[str, str] = {}
    with ExitStack() as webhooks:
        for title, containers in ADDED.items():
            change = mesh(product.trainer_image, *containers)
            place = tmp_path_factory.mktemp("mesh")
            webhook = webhooks.enter_context(serve_injector(NAMESPACE, place, change))
            product.kubectl("replace", "-f", "-", stdin=json.dumps(webhook))
            run = product.submit(environments.config(folder, "examples/beside-a-mesh"))
            words = ["get", "pods", *pods_of(run), "--watch", "-o", f"jsonpath={ENDED}"]
            watches[title] = subprocess.Popen(
                lifecycle.kubectl(words, product.steps), stdout=subprocess.PIPE, text=True
            )
            product.wait_until(lambda run=run: is_busy(product, run, "pods"), f"the pod of {run}")
            runs[title] = run
        for run in runs.values():
            product.end(run, "Failed")
        for run in runs.values():
            product.wait_until(lambda run=run: not is_busy(product, run), "the end of the pod", 120)
        time.sleep(30)  # a Job that retried would have another pod after 10 s
    found = {}
    for title, watch in watches.items():
        watch.terminate()
        found[title] = Beside(runs[title], set(watch.communicate(timeout=60)[0].split()))
    return found


@pytest.mark.parametrize("containers", ADDED)
def test_the_trainers_code_ends_a_run_whatever_added_containers_end_with(
    product: Product, failed: dict[str, Beside], containers: str
) -> None:
    """A native sidecar ends with 143, as an interruption does, which would be a free retry."""
    run, seen = failed[containers]
    assert not is_busy(product, run)
    assert len({line.partition("=")[0] for line in seen}) == 1  # one pod
    assert [line for line in seen if line.endswith("=143")], seen
    status = product.status(run)
    assert status["failure"]["reason"] == "RewardFailed"
    assert [item["reason"] for item in status["attempts"]] == ["RewardFailed"]


def pods_of(run: str) -> tuple[str, ...]:
    """The words by which kubectl finds the objects of a run."""
    return ("-l", f"flashrun.dev/run={run}", "-n", NAMESPACE)


def is_busy(product: Product, run: str, kinds: str = "jobs,pods") -> bool:
    """Whether a Job or a pod of a run goes on."""
    words = ("get", kinds, *pods_of(run), "-ojson")
    statuses = [item["status"] for item in json.loads(product.kubectl(*words))["items"]]
    return any(
        status.get("active") or status.get("phase") in ("Pending", "Running") for status in statuses
    )


KINDS = "jobs,pods,secrets,configmaps,services,roles,rolebindings,deployments,networkpolicies"
OURS = ("-l", "app.kubernetes.io/name=flashrun")
"""Everything of the product has this label."""


def test_after_the_product_is_uninstalled_nothing_of_it_is_left(
    product: Product, other: OtherFolder, life: dict[str, Any], tmp_path: Path
) -> None:
    # A pod whose run is gone has its whole grace period, which a container may use.
    product.kubectl("delete", "mutatingwebhookconfiguration", "mesh")
    running = product.submit(long_config(tmp_path))
    product.wait(running, lambda status: status.get("phase") == "Running", "training")
    product.kubectl("delete", "flashruns", "--all", "--all-namespaces", "--timeout=120s")
    other.helm("uninstall", "flashrun")
    product.kubectl("delete", "crd", "flashruns.flashrun.dev", "--timeout=60s")
    product.kubectl("delete", "configmap,secret", "-n", NAMESPACE, *OURS)  # for people, published
    product.kubectl("delete", "namespace", SYSTEM, "--timeout=120s")

    def left(*words: str) -> list[str]:
        return product.kubectl("get", *words, "-oname").split()

    product.wait_until(lambda: not left(KINDS, "--all-namespaces", *OURS), "the end of all", 120)
    assert left("clusterroles,clusterrolebindings,crds", *OURS) == []
    every = json.loads(product.kubectl("get", f"{KINDS}", "--all-namespaces", "-ojson"))["items"]
    every += json.loads(product.kubectl("get", "namespaces,crds", "-ojson"))["items"]
    assert [item for item in every if "deletionTimestamp" in item["metadata"]] == []
