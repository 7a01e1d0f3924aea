"""Namespaces that cannot be served: deleted, or without the chart's RoleBinding.

They cost the others nothing, the operator stays healthy, and they come back by themselves.
"""

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashrun.api import names
from flashrun.api.platform import EnvironmentSettings
from flashrun.api.pod import POD_UID_VARIABLE, POD_VARIABLE
from flashrun.cluster_errors import ClusterError, Conflict, Forbidden, Unreachable
from flashrun.controller import operator_metrics, served_namespaces
from flashrun.controller.lease import NotLeading
from flashrun.controller.namespace_sources import ListedNamespaces
from flashrun.controller.served_namespaces import ServedNamespaces
from flashrun.controller.settings import read_platform
from tests.controller.conftest import Operators
from tests.controller.other_tenant import OtherTenant
from tests.controller.stage import World, flash_run, wait_for_phase
from tests.controller.test_rights import RIGHTS, SYSTEM, chart, log_in
from tests.servers import kubectl

_numbers = count(1)
RUN = "flash-1-0a1b2c3d"


class Rights:
    """Stands in for the cluster: it says what may be watched where."""

    namespace = "flashrun-system"

    def __init__(self, *refused: tuple[str, str]) -> None:
        self.refused = set(refused)
        self.away = False
        self.events: list[dict[str, Any]] = []

    async def may(self, verb: str, kind: str, namespace: str) -> bool:
        if self.away:
            raise Unreachable("the API server is away")
        assert verb == "watch"
        return (kind, namespace) not in self.refused

    async def create(self, manifest: dict[str, Any]) -> None:
        self.events.append(manifest)


def served_by(rights: Rights) -> ServedNamespaces:
    cluster: Any = rights
    return ServedNamespaces(cluster, ListedNamespaces(("team-a", "team-b", "team-c")))


async def test_a_namespace_in_which_one_kind_cannot_be_watched_is_left_out_until_it_can() -> None:
    rights = Rights(("Pod", "team-a"), (names.KIND, "team-c"))
    served = served_by(rights)
    await served.probe()
    assert served.now == ("team-b",)
    shown = operator_metrics.exposition()[0].decode()
    assert 'flashrun_namespace_served{namespace="team-a"} 0.0' in shown
    assert 'flashrun_namespace_served{namespace="team-b"} 1.0' in shown

    rights.refused = {("Job", "team-b")}
    await served.probe()
    assert served.now == ("team-a", "team-c")


async def test_while_the_api_server_is_away_nothing_changes() -> None:
    rights = Rights(("Pod", "team-a"))
    served = served_by(rights)
    await served.probe()
    rights.away, rights.refused = True, set()
    await served.probe()
    assert served.now == ("team-b", "team-c")


class Followed:
    """Namespaces that the operator prepares itself, as long as ``refusal`` does not keep it."""

    first: tuple[str, ...] = ()
    changes = True
    refusal: ClusterError | None = None
    names: tuple[str, ...] = ("team-a", "team-b")

    async def wanted(self) -> tuple[str, ...]:
        return self.names

    async def prepare(self, namespace: str) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def leave(self, wanted: Iterable[str]) -> None:
        pass


@pytest.mark.parametrize(
    ("refusal", "kept"),
    [
        (Unreachable("the API server is overloaded"), ("team-a", "team-b")),
        (NotLeading("this replica does not hold the lease"), ("team-a", "team-b")),
        (Conflict("somebody else has changed it"), ("team-a", "team-b")),
        (Forbidden("you may not create rolebindings"), ()),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_only_a_refusal_ends_the_watches_of_a_namespace_that_is_followed(
    monkeypatch: pytest.MonkeyPatch, refusal: ClusterError, kept: tuple[str, ...]
) -> None:
    monkeypatch.setattr(served_namespaces, "PROBE_SECONDS", 0.0)  # all are asked about each time
    cluster: Any = Rights()
    source = Followed()
    served = ServedNamespaces(cluster, source)
    await served.probe()
    source.refusal, source.names = refusal, ("team-a", "team-b", "team-new")
    await served.probe()
    assert served.now == kept
    assert served.wanted == source.names


async def test_a_change_is_one_event_of_the_operators_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(POD_VARIABLE, "operator-1")
    monkeypatch.setenv(POD_UID_VARIABLE, "uid-1")
    rights = Rights(("Pod", "team-a"), ("Job", "team-b"))
    served = served_by(rights)
    for refused in (rights.refused, rights.refused, set()):
        rights.refused = refused
        await served.probe()
    missing, back = rights.events
    assert (missing["type"], missing["reason"]) == ("Warning", "NamespaceNotServed")
    assert "in namespace team-a, team-b: it was deleted, or the chart's" in missing["message"]
    assert missing["involvedObject"]["name"] == "operator-1"
    assert missing["metadata"]["namespace"] == "flashrun-system"
    assert (back["type"], back["reason"]) == ("Normal", "NamespacesServed")


async def test_a_list_is_read_again_and_a_file_that_is_not_valid_changes_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "platform.yaml"

    def write(*namespaces: str) -> None:
        rest = {"storage": {"endpoint": "http://s3.example"}, "trainer": {"image": "t@sha256:1"}}
        pools = [{"name": "small", "vram": 24}]
        path.write_text(yaml.safe_dump({**rest, "pools": pools, "namespaces": [*namespaces]}))

    cluster: Any = Rights()
    added: list[str] = []
    source = ListedNamespaces(("team-a", "team-b"), partial(read_platform, path))
    served = ServedNamespaces(cluster, source, added.extend)
    write("team-b", "team-c")
    await served.probe()
    assert served.now == served.wanted == ("team-b", "team-c")
    assert added == ["team-c"]
    shown = operator_metrics.exposition()[0].decode()
    assert 'flashrun_namespace_served{namespace="team-a"}' not in shown

    for broken in ("namespaces: 3", "{"):
        path.write_text(broken)
        await served.probe()
        assert served.now == ("team-b", "team-c")


@pytest.fixture
def teams(installed: Path, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Four namespaces with the chart's rights."""
    number = next(_numbers)
    teams = tuple(f"{name}-{number}" for name in ("unbound", "good", "gone", "partly"))
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    kubectl(installed, "apply", "-f", "-", stdin=yaml.safe_dump(system))  # other tests have it, too
    for name in teams:
        kubectl(installed, "create", "namespace", name)
    rights = install(installed, tmp_path, teams)
    yield teams
    kubectl(installed, "delete", "-f", "-", "--ignore-not-found", stdin=rights)
    kubectl(installed, "delete", "namespace", *teams, "--ignore-not-found", "--wait=false")


def install(admin: Path, folder: Path, teams: tuple[str, ...]) -> str:
    """Give the operator its rights in ``teams``, and return them as YAML."""
    values = [f"namespaces[{index}]={name}" for index, name in enumerate(teams)]
    rights = [item for item in chart(folder, *values) if item["kind"] in RIGHTS]
    text = yaml.safe_dump_all(rights)
    kubectl(admin, "apply", "--server-side", "-f", "-", stdin=text)
    return text


def account(admin: Path, folder: Path) -> Path:
    path = folder / "operator.kubeconfig"
    log_in(admin, path, kubectl(admin, "create", "token", "flashrun", "-n", SYSTEM).strip())
    return path


@pytest.mark.api
async def test_namespaces_that_cannot_be_served_cost_the_others_nothing_and_come_back(
    operators: Operators, world: World, teams: tuple[str, ...], installed: Path, tmp_path: Path
):
    unbound, good, gone, partly = teams
    owners = EnvironmentSettings(owners={"org": teams})
    world.platform = world.platform.replace(namespaces=teams, environments=owners)
    kubectl(installed, "delete", "rolebinding", "flashrun-served", "-n", unbound)
    kubectl(installed, "delete", "namespace", gone)
    bind_runs_only(installed, partly)
    await world.cluster.create(flash_run(unbound, RUN))
    await world.cluster.create(flash_run(partly, RUN))

    pod = {POD_VARIABLE: "operator-1", POD_UID_VARIABLE: "uid-1"}
    process = operators.start(account(installed, tmp_path), **pod)
    operators.wait(lambda: operators.leads(process))
    served = World(
        world.cluster,
        world.store,
        world.platform.model_copy(update={"namespaces": (good,)}),
        installed,
    )
    await served.submit(RUN)
    await wait_for_phase(served, RUN, "Starting", 5)
    shown = operators.ask(process, "/metrics")[1]
    for name in (unbound, gone, partly):
        assert f'flashrun_namespace_served{{namespace="{name}"}} 0.0' in shown
    assert f'flashrun_namespace_served{{namespace="{good}"}} 1.0' in shown
    events = await world.cluster.list("Event", SYSTEM)
    [event] = [event for event in events if unbound in event["message"]]
    assert event["reason"] == "NamespaceNotServed"
    assert f"in namespace {unbound}, {gone}, {partly}: " in event["message"]
    status = (await world.cluster.get(names.KIND, partly, RUN))["status"]
    assert status["pending"]["reason"] == "ClusterRefuses"
    assert "you may not list" in status["pending"]["message"]

    other = OtherTenant(served, operators, process)
    for number in range(13):  # health counts the watches after the first minute
        await asyncio.sleep(5)
        assert operators.ask(process, "/healthz") == (200, "ok"), number
    await other.is_served()
    await other.finish(await served.trainer(RUN))

    kubectl(installed, "create", "namespace", gone)
    install(installed, tmp_path, teams)
    await world.cluster.create(flash_run(gone, RUN))
    for name in (unbound, gone, partly):
        platform = world.platform.model_copy(update={"namespaces": (name,)})
        there = World(world.cluster, world.store, platform, installed)
        await wait_for_phase(there, RUN, "Starting", 20)
    assert operators.ask(process, "/healthz") == (200, "ok")
    assert process.poll() is None


def bind_runs_only(admin: Path, namespace: str) -> None:
    """Replace the chart's rights by those on FlashRuns and their status alone."""
    kubectl(admin, "delete", "rolebinding", "flashrun-served", "-n", namespace)
    runs = ("--verb=get,list,watch,patch", "--resource=flashruns.flashrun.dev")
    status = "--resource=flashruns.flashrun.dev/status"
    kubectl(admin, "create", "role", "runs-only", *runs, status, "-n", namespace)
    who = f"--serviceaccount={SYSTEM}:flashrun"
    kubectl(admin, "create", "rolebinding", "runs-only", "--role=runs-only", who, "-n", namespace)
