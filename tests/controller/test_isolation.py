"""An editor of one namespace, with everything that a kubeconfig gives: what is out of reach.

The rights are the chart's and Kubernetes' own role ``edit``; the storage credentials are those that
the operator publishes, tried on a real S3 server.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from flashrun.api import names
from flashrun.api.platform import EnvironmentSettings
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.output.failure import Failure
from flashrun.cluster import Cluster
from flashrun.cluster_errors import Forbidden
from flashrun.controller import publish
from flashrun.controller.mirror_reader import MirrorReader
from flashrun.controller.storage_access import AccessIssuer
from flashrun.controller.upstreams import Upstreams
from flashrun.store import Store
from flashrun.store_errors import StorageForbidden
from tests.controller.stage import platform
from tests.controller.test_rights import RIGHTS, SYSTEM, chart, log_in
from tests.plan.test_storage_policies import use
from tests.servers import kubectl

pytestmark = pytest.mark.api
_pairs = count(1)


@pytest_asyncio.fixture
async def teams(installed: Path, cluster: Cluster, store: Store, tmp_path: Path):
    """Two served namespaces with all that the operator publishes in them."""
    number = next(_pairs)
    teams = (f"team-a-{number}", f"team-b-{number}")
    for name in (SYSTEM, *teams):
        if await cluster.find("Namespace", None, name) is None:
            metadata = {"name": name}
            await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    values = [f"namespaces[{index}]={name}" for index, name in enumerate(teams)]
    rights = yaml.safe_dump_all(
        [item for item in chart(tmp_path, *values) if item["kind"] in RIGHTS]
    )
    kubectl(installed, "apply", "--server-side", "-f", "-", stdin=rights)
    shared = EnvironmentSettings(owners={"shared": teams})
    settings = platform(teams[0], store.access).replace(namespaces=teams, environments=shared)
    publishing = asyncio.create_task(
        publish.publish(
            cluster,
            AccessIssuer(store, settings.storage, lambda: store.access),
            settings,
            Upstreams(settings.trainer, tmp_path),
            MirrorReader(store, settings),
            lambda: settings.namespaces,
            str,
        )
    )
    await until(lambda: _published(cluster, teams))
    publishing.cancel()
    with suppress(asyncio.CancelledError):
        await publishing
    yield teams
    kubectl(installed, "delete", "-f", "-", stdin=rights)
    kubectl(installed, "delete", "namespace", *teams, "--wait=false")


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(300):
        if await done():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it never happened")


async def _published(cluster: Cluster, teams: tuple[str, ...]) -> bool:
    found = [await cluster.metadata("Secret", team, names.STORAGE_USER_SECRET) for team in teams]
    found.append(await cluster.metadata("Secret", cluster.namespace, names.STORAGE_MODELS_SECRET))
    return all(found)


@pytest_asyncio.fixture
async def jane(installed: Path, teams: tuple[str, str], tmp_path: Path) -> AsyncIterator[Cluster]:
    """The connection of somebody who may edit the first team's namespace."""
    mine = ("-n", teams[0])
    kubectl(installed, "create", "serviceaccount", "jane", *mine)
    who = f"--serviceaccount={teams[0]}:jane"
    kubectl(installed, "create", "rolebinding", "jane", "--clusterrole=edit", who, *mine)
    path = tmp_path / "jane.kubeconfig"
    log_in(installed, path, kubectl(installed, "create", "token", "jane", *mine).strip())
    async with await Cluster.login(path) as connection:
        # Roles are put together by a controller.
        await until(lambda: connection.may("create", names.KIND, teams[0]))
        yield connection


RIGHTS_OF_AN_EDITOR = [
    *((verb, names.KIND, "") for verb in ("get", "list", "watch", "create", "patch", "delete")),
    *(("create", "Secret", ""), ("get", "Secret", ""), ("get", "Pod", "log")),
    *(("create", "Pod", "portforward"), ("list", "Job", ""), ("list", "ResourceQuota", "")),
]


async def test_the_roles_of_one_namespace_give_nothing_in_another(
    jane: Cluster, teams: tuple[str, str]
):
    mine, theirs = teams
    for verb, kind, subresource in RIGHTS_OF_AN_EDITOR:
        assert await jane.may(verb, kind, mine, subresource), (verb, kind, subresource)
        for elsewhere in (theirs, SYSTEM, "kube-system"):
            refused = not await jane.may(verb, kind, elsewhere, subresource)
            assert refused, (verb, kind, subresource, elsewhere)
    assert not await jane.may("patch", names.KIND, mine, "status")
    with pytest.raises(Forbidden):
        await jane.secret_value(theirs, names.STORAGE_USER_SECRET, "access.json")


async def test_what_is_public_can_be_read_everywhere(jane: Cluster, teams: tuple[str, str]):
    for team in teams:
        assert await ClusterSession(jane, team).get_platform() is not None


ALLOWED = [
    ("get", "runs/{mine}/r/u/metrics.jsonl"),
    ("list", "runs/{mine}/"),
    *((verb, "environments/{mine}/env/latest.json") for verb in ("get", "put", "delete")),
    *((verb, "environments/shared/env/latest.json") for verb in ("get", "put", "delete")),
    *(("list", "environments/{mine}/"), ("list", "environments/shared/")),
    *(("get", "models/org/m/r/tokenizer.json"), ("list", "models/org/m/")),
]
REFUSED = [
    *((verb, "runs/{mine}/r/u/result.json") for verb in ("put", "delete")),
    *((verb, "runs/{theirs}/r/u/result.json") for verb in ("get", "put", "delete")),
    *((verb, "environments/{theirs}/env/latest.json") for verb in ("get", "put", "delete")),
    *(("list", "environments/{theirs}/"), ("list", "environments/")),
    *(("list", "runs/{theirs}/"), ("list", "runs/"), ("list", ""), ("list", "live/")),
    *((verb, "live/uid.json") for verb in ("get", "put", "delete")),
    *((verb, "endings/{mine}/r/u.json") for verb in ("get", "put", "delete")),
    *((verb, "known/installation/{mine}/r/u") for verb in ("get", "put", "delete")),
    *((verb, "models/org/m/r/model.safetensors") for verb in ("get", "put", "delete")),
    *((verb, "models/org/m/r/tokenizer.json") for verb in ("put", "delete")),
]


async def test_the_keys_of_one_namespace_open_nothing_of_another(
    jane: Cluster, teams: tuple[str, str], store: Store
):
    mine, theirs = teams
    granted = await ClusterSession(jane, mine).open_store()
    for verb, template in (*ALLOWED, *REFUSED):
        if verb != "list":
            store.put_bytes(template.format(mine=mine, theirs=theirs), b"there")
    for verb, template in ALLOWED:
        use(granted, verb, template.format(mine=mine, theirs=theirs))
    for verb, template in REFUSED:
        with pytest.raises(StorageForbidden):
            use(granted, verb, template.format(mine=mine, theirs=theirs))


async def test_only_who_may_read_the_operators_namespace_gets_the_keys_of_the_mirror(
    jane: Cluster, cluster: Cluster, teams: tuple[str, str]
):
    """The operator of this test publishes where its own connection is."""
    with pytest.raises(Failure, match="the model mirror cannot be used: you may not get secrets"):
        await ClusterSession(jane, teams[0]).with_mirror(lambda _: None)
    keys = await ClusterSession(cluster, teams[0]).with_mirror(
        lambda store: (use(store, "put", "models/org/m/1/f"), store)[1]
    )
    with pytest.raises(StorageForbidden):
        use(keys, "list", f"runs/{teams[0]}/")


async def test_the_keys_of_people_cannot_make_wider_ones(
    jane: Cluster, teams: tuple[str, str], store: Store
):
    """Who holds limited keys may ask for others: they allow no more than the first ones."""
    mine, theirs = teams
    granted = await ClusterSession(jane, mine).open_store()
    key = f"runs/{theirs}/r/u/metrics.jsonl"
    store.put_bytes(key, b"1")
    everything = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}],
    }
    with pytest.raises(StorageForbidden):
        Store(granted.assume(everything, 900)).get_bytes(key)
