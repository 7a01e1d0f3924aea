"""Namespaces that are served by their labels: they come and go while the operator runs.

The operator has the rights that the chart gives it for this, and no others.
"""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import yaml

from flashrun.api import names
from flashrun.api.label_selector import LabelSelector
from flashrun.cluster import Cluster
from flashrun.cluster_errors import Forbidden
from flashrun.controller.settings import NAMESPACE_OBJECTS
from tests.controller.conftest import Operators
from tests.controller.stage import World, flash_run, wait_for_phase
from tests.controller.test_rights import RIGHTS, SYSTEM, chart, log_in
from tests.servers import kubectl

pytestmark = pytest.mark.api
POLICIES = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
RUN, LATER = "flash-1-0a1b2c3d", "flash-2-0a1b2c3d"
_numbers = count(1)


@dataclass
class Followed:
    """A release that follows the namespaces with a label of this test."""

    admin: Path
    number: int
    account: Path
    """The kubeconfig of the operator."""
    objects: str
    """What the chart lets the operator make in each namespace."""

    @property
    def label(self) -> str:
        return f"test/serve-{self.number}"

    def create(self, name: str, *labels: str) -> str:
        name = f"{name}-{self.number}"
        kubectl(self.admin, "create", "namespace", name)
        if labels:
            kubectl(self.admin, "label", "namespace", name, *labels)
        return name

    def label_namespace(self, name: str, *labels: str) -> None:
        kubectl(self.admin, "label", "namespace", name, *labels)


@pytest.fixture
def followed(installed: Path, tmp_path: Path) -> Iterator[Followed]:
    number = next(_numbers)
    label = f"test/serve-{number}"
    values = ["namespaces=null", f"namespaceSelector.matchExpressions[0].key={label}"]
    values += ["namespaceSelector.matchExpressions[0].operator=In"]
    values += ["namespaceSelector.matchExpressions[0].values={yes,perhaps}"]
    made = chart(tmp_path, *values)
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    rights = [item for item in made if item["kind"] in RIGHTS | POLICIES]
    kubectl(installed, "apply", "-f", "-", stdin=yaml.safe_dump(system))
    text = yaml.safe_dump_all(rights)
    kubectl(installed, "apply", "--server-side", "-f", "-", stdin=text)
    account = tmp_path / "operator.kubeconfig"
    log_in(
        installed, account, kubectl(installed, "create", "token", "flashrun", "-n", SYSTEM).strip()
    )
    [platform] = [item for item in made if item["metadata"]["name"] == "flashrun-platform"]
    objects = platform["data"][NAMESPACE_OBJECTS]
    (tmp_path / NAMESPACE_OBJECTS).write_text(objects)
    yield Followed(installed, number, account, objects)
    kubectl(installed, "delete", "--ignore-not-found", "-f", "-", stdin=text)
    kubectl(installed, "delete", "namespaces", "-l", label, "--wait=false")


async def until(seen: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(seen):
        assert time.monotonic() < end, "never seen"
        await asyncio.sleep(0.2)


async def test_namespaces_come_and_go_by_their_labels_while_the_operator_runs(
    operators: Operators, world: World, followed: Followed
):
    early = followed.create("early", f"{followed.label}=yes")
    late = followed.create("late")
    selector = {"key": followed.label, "operator": "In", "values": ["yes", "perhaps"]}
    world.platform = world.platform.replace(
        namespaces=(), namespace_selector=LabelSelector(match_expressions=(selector,))
    )
    owners = {"org": (early, late, f"new-{followed.number}")}
    world.platform = world.platform.replace(environments={"owners": owners})

    def there(namespace: str) -> World:
        listed = world.platform.model_copy(update={"namespaces": (namespace,)})
        return World(world.cluster, world.store, listed, followed.admin)

    async def serves(namespace: str, name: str = RUN) -> None:
        await world.cluster.create(flash_run(namespace, name))
        await wait_for_phase(there(namespace), name, "Starting")

    await world.cluster.create(flash_run(late, RUN))
    process = operators.start(followed.account)
    operators.wait(lambda: operators.leads(process))
    await serves(early)
    assert await world.cluster.find("NetworkPolicy", early, "flashrun-followed")
    await until(lambda: _has(followed, early, "configmap", names.PUBLIC_CONFIG_MAP))
    assert (await there(late).run(RUN)).status.phase == "Pending"

    followed.label_namespace(late, f"{followed.label}=perhaps")
    await wait_for_phase(there(late), RUN, "Starting")
    new = followed.create("new", f"{followed.label}=yes")
    await serves(new)

    followed.label_namespace(early, f"{followed.label}-")
    await until(lambda: not _has(followed, early, "rolebinding", "flashrun-followed"))
    left = (await there(early).run(RUN)).status
    assert left.phase == "Starting"
    assert left.pending is not None
    assert left.pending.reason == "NamespaceNotServed"
    assert "Pods that run go on until their storage credentials expire at 20" in (
        left.pending.message
    )
    job = await there(early).job(RUN)
    assert not job["spec"].get("suspend")
    assert await there(early).pod(RUN)
    assert not _has(followed, early, "configmap", names.PUBLIC_CONFIG_MAP)
    async with await Cluster.login(followed.account) as account:
        with pytest.raises(Forbidden):
            await account.get("Secret", early, names.STORAGE_USER_SECRET)
    await world.cluster.create(flash_run(early, LATER))
    await serves(new, LATER)  # the others go on
    # Kubernetes would wait for half of the grace of its pod before it looks again.
    kubectl(followed.admin, "delete", "flashrun", RUN, "-n", late)
    await until(lambda: not kubectl(followed.admin, "get", "pods", "-n", late, "-o", "name"))
    kubectl(followed.admin, "delete", "namespace", late, "--wait=false")

    followed.label_namespace(early, f"{followed.label}=yes")
    await wait_for_phase(there(early), LATER, "Starting")
    await until(lambda: "NamespaceNotServed" not in _status(followed, early))
    assert operators.ask(process, "/healthz") == (200, "ok")
    shown = operators.ask(process, "/metrics")[1]
    assert "flashrun_watch_restarts_total 0.0" in shown
    assert f'flashrun_namespace_served{{namespace="{new}"}} 1.0' in shown
    gone = f'flashrun_namespace_served{{namespace="{late}"}}'
    # Kubernetes takes its time: what is left in the namespace has to be deleted first.
    await until(lambda: gone not in operators.ask(process, "/metrics")[1], 120)
    assert process.poll() is None


async def test_the_operator_binds_its_own_rights_to_itself_where_the_labels_match(
    followed: Followed,
):
    yes = followed.create("yes", f"{followed.label}=yes")
    other = followed.create("other", f"{followed.label}=no")
    none = followed.create("none")
    served = next(yaml.safe_load_all(followed.objects))

    def bound(namespace: str, **changes: object) -> dict:
        metadata = {**served["metadata"], "namespace": namespace}
        return {**served, "metadata": metadata, **changes}

    someone = {"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}
    role = {**served["roleRef"], "name": "admin"}
    refused: list[tuple[dict, str]] = [
        (bound(other), "serves no namespace like other"),
        (bound(none), "serves no namespace like none"),
        (bound("kube-system"), "serves no namespace like kube-system"),
        (bound(SYSTEM), "serves no namespace like flashrun-system"),
        (bound(yes, subjects=[someone]), "binds its own rights to itself alone"),
        (bound(yes, roleRef=role), "you may not|not granted|attempting"),
    ]
    async with await Cluster.login(followed.account) as account:
        end = time.monotonic() + 60  # the API server reads policies after a while
        while time.monotonic() < end:
            try:
                await account.apply(bound(other))
            except Forbidden:
                break
            await account.delete("RoleBinding", other, "flashrun-followed")
            await asyncio.sleep(0.5)
        await account.apply(bound(yes))
        await _leaves_other_policies_alone(account, followed, yes)
        await account.delete("RoleBinding", yes, "flashrun-followed")
        for manifest, words in refused:
            with pytest.raises(Forbidden, match=words):
                await account.apply(manifest)
        with pytest.raises(Forbidden):
            await account.delete("RoleBinding", none, "another")


async def _leaves_other_policies_alone(
    account: Cluster, followed: Followed, namespace: str
) -> None:
    own = next(
        item for item in yaml.safe_load_all(followed.objects) if item["kind"] == "NetworkPolicy"
    )
    theirs = {**own, "metadata": {"name": "theirs", "namespace": namespace}}
    kubectl(followed.admin, "apply", "-f", "-", stdin=yaml.safe_dump(theirs))
    own["metadata"]["namespace"] = namespace
    end = time.monotonic() + 30  # the API server reads a RoleBinding after a moment
    while True:
        try:
            await account.apply(own)
            break
        except Forbidden:
            assert time.monotonic() < end
            await asyncio.sleep(0.2)
    await account.apply(own)
    with pytest.raises(Forbidden):
        await account.patch("NetworkPolicy", namespace, "theirs", {"spec": {"podSelector": {}}})


def _has(followed: Followed, namespace: str, kind: str, name: str) -> bool:
    asked = ["get", kind, name, "-n", namespace]
    try:
        kubectl(followed.admin, *asked)
    except subprocess.CalledProcessError:
        return False
    return True


def _status(followed: Followed, namespace: str) -> str:
    return kubectl(followed.admin, "get", "flashruns", "-n", namespace, "-o", "yaml")
