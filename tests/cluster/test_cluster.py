"""The cluster module against a real API server: what it does, and its sentences when it cannot."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from flashrun.cluster import Cluster
from flashrun.cluster_errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Invalid,
    NoCluster,
    NotFound,
    TooLarge,
)
from flashrun.cluster_requests import WholeAnswers

pytestmark = pytest.mark.api
Object = dict[str, Any]


@pytest_asyncio.fixture
async def cluster(kubeconfig: Path) -> AsyncIterator[Cluster]:
    async with await Cluster.login(kubeconfig) as connection:
        yield connection


def config_map(name: str, namespace: str = "default", **data: str) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def twice(cluster: Cluster, manifest: Object) -> None:
    for _ in range(2):
        await cluster.create(manifest)


async def test_an_object_is_created_read_changed_and_deleted(cluster: Cluster):
    await cluster.create(config_map("life", a="1"))
    await cluster.patch("ConfigMap", "default", "life", {"data": {"b": "2"}})
    assert (await cluster.get("ConfigMap", "default", "life"))["data"] == {"a": "1", "b": "2"}
    await cluster.patch("ConfigMap", "default", "life", {"data": {"b": None}})
    assert (await cluster.get("ConfigMap", "default", "life"))["data"] == {"a": "1"}
    assert await cluster.delete("ConfigMap", "default", "life")
    assert not await cluster.delete("ConfigMap", "default", "life")
    assert await cluster.find("ConfigMap", "default", "life") is None


async def test_apply_owns_what_it_says_and_leaves_the_rest(cluster: Cluster):
    await cluster.apply(config_map("applied", a="1", b="2"))
    await cluster.patch("ConfigMap", "default", "applied", {"data": {"c": "3"}}, manager="other")
    await cluster.apply(config_map("applied", a="9"))
    assert (await cluster.get("ConfigMap", "default", "applied"))["data"] == {"a": "9", "c": "3"}


async def test_a_list_shows_every_page_and_only_what_carries_the_labels(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(WholeAnswers, "page", 3)
    for number in range(8):
        manifest = config_map(f"paged-{number}")
        manifest["metadata"]["labels"] = {"set": "even" if number % 2 == 0 else "odd"}
        await cluster.create(manifest)
    found = await cluster.list("ConfigMap", "default", {"set": "even"})
    assert [item["metadata"]["name"] for item in found] == [f"paged-{n}" for n in (0, 2, 4, 6)]
    assert {(item["kind"], item["apiVersion"]) for item in found} == {("ConfigMap", "v1")}
    every = {item["metadata"]["name"] for item in await cluster.list("ConfigMap", "default")}
    assert {f"paged-{number}" for number in range(8)} <= every


async def test_of_a_list_the_highest_ranks_are_kept_and_objects_that_are_too_large_left_out(
    cluster: Cluster,
):
    """Pages shrink until the large one is alone; then the list goes on behind it."""
    for number in range(9):
        text = "x" * 30_000 if number == 4 else "x"
        manifest = config_map(f"ranked-{number}", text=text)
        manifest["metadata"]["labels"] = {"set": "ranked"}
        await cluster.create(manifest)
    answers = WholeAnswers()
    answers.max_bytes, answers.left_out = 20_000, 1
    bounded = cluster.with_answers(answers)
    labels = {"set": "ranked"}

    def rank(item: Object) -> int | None:
        number = int(item["metadata"]["name"].rpartition("-")[2])
        return None if number == 8 else -abs(number - 5)

    newest = await bounded.newest("ConfigMap", "default", labels, 3, rank)
    assert [item["metadata"]["name"] for item in newest] == ["ranked-5", "ranked-6", "ranked-7"]
    answers.left_out = 0
    with pytest.raises(TooLarge, match="longer than 20,000 bytes"):
        await bounded.newest("ConfigMap", "default", labels, 3, rank)


async def test_of_a_list_the_metadata_can_be_had_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(WholeAnswers, "page", 2)
    assert [item async for item in cluster.list_metadata("Event", "kube-public")] == []
    for number in range(3):
        await cluster.create(config_map(f"alone-{number}", a="1"))
    found = [item async for item in cluster.list_metadata("ConfigMap", "default")]
    assert {f"alone-{number}" for number in range(3)} <= {item["name"] for item in found}
    assert all(item["uid"] and "data" not in item for item in found)
    nodes = [item async for item in cluster.each("ConfigMap")]
    assert len(nodes) >= len(found)


async def test_a_successor_of_the_same_name_is_not_deleted(cluster: Cluster):
    first = await cluster.create(config_map("again"))
    await cluster.delete("ConfigMap", "default", "again")
    await cluster.create(config_map("again"))
    assert not await cluster.delete("ConfigMap", "default", "again", uid=first["metadata"]["uid"])
    assert await cluster.find("ConfigMap", "default", "again") is not None


async def test_an_object_that_someone_else_changed_is_a_conflict(cluster: Cluster):
    stale = await cluster.create(config_map("race", a="1"))
    await cluster.patch("ConfigMap", "default", "race", {"data": {"a": "2"}})
    with pytest.raises(Conflict, match="configmaps race in namespace default was changed"):
        await cluster.replace(stale)


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (
            lambda c: c.get("ConfigMap", "default", "absent"),
            NotFound,
            "configmaps absent in namespace default does not exist",
        ),
        (
            lambda c: c.create(config_map("x", "no-such-namespace")),
            NotFound,
            "namespace no-such-namespace does not exist",
        ),
        (
            lambda c: twice(c, config_map("made-before")),
            AlreadyExists,
            "made-before exists already",
        ),
        (
            lambda c: c.create(config_map("Not_A_Name")),
            Invalid,
            "metadata.name: Invalid value",
        ),
        (
            lambda c: c.secret_value("default", "absent", "key"),
            NotFound,
            "secrets absent in namespace default does not exist",
        ),
    ],
    ids=["no object", "no namespace", "twice", "a wrong name", "no secret"],
)
async def test_a_refusal_is_one_sentence(
    cluster: Cluster, call: Any, kind: type[ClusterError], sentence: str
):
    with pytest.raises(ClusterError) as caught:
        await call(cluster)
    assert type(caught.value) is kind
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


# --- secrets --------------------------------------------------------------------------------------


async def test_keys_are_copied_without_a_value_leaving_the_module(cluster: Cluster):
    source = {"name": "source", "namespace": "default", "labels": {"l": "1"}}
    await cluster.create_secret(source, {"A": "first", "B": "second", "EMPTY": ""})
    assert await cluster.secret_keys("default", "source") == ({"l": "1"}, frozenset({"A", "B"}))
    assert await cluster.secret_keys("default", "no-source") is None

    target = {"name": "target", "namespace": "default"}
    assert (await cluster.copy_keys(target, {"A": "source"}))["name"] == "target"
    with pytest.raises(AlreadyExists):
        await cluster.copy_keys(target, {"B": "source"})
    assert await cluster.secret_value("default", "target", "A") == "first"
    assert await cluster.secret_keys("default", "target") == ({}, frozenset({"A"}))
    metadata = await cluster.metadata("Secret", "default", "target")
    assert metadata is not None
    assert metadata["name"] == "target"
    with pytest.raises(NotFound, match="secret source in namespace default has no C"):
        await cluster.copy_keys({"name": "other", "namespace": "default"}, {"C": "source"})
    with pytest.raises(Invalid, match="immutable"):
        await cluster.patch("Secret", "default", "target", {"stringData": {"A": "changed"}})


async def test_a_secret_that_is_put_replaces_its_values(cluster: Cluster):
    metadata = {"name": "renewed", "namespace": "default"}
    for value in ("one", "two"):
        await cluster.put_secret(metadata, {"access.json": value})
        assert await cluster.secret_value("default", "renewed", "access.json") == value
    found = await cluster.get("Secret", "default", "renewed")
    assert not found["metadata"].get("annotations")


# --- login ----------------------------------------------------------------------------------------


async def test_the_context_says_where_we_are(kubeconfig: Path):
    async with await Cluster.login(kubeconfig) as cluster:
        assert (cluster.context, cluster.namespace) == ("flashrun-local", "default")
        assert cluster.server.startswith("https://127.0.0.1:")


async def test_a_context_that_does_not_exist_is_named(kubeconfig: Path):
    with pytest.raises(NoCluster, match="no-such-context"):
        await Cluster.login(kubeconfig, "no-such-context")


@pytest.mark.parametrize("text", ["", "{}", "no: [yaml", "apiVersion: v1\nkind: Config\n"])
async def test_a_kubeconfig_that_cannot_be_used_says_so(tmp_path: Path, text: str):
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(NoCluster, match="the kubeconfig cannot be used"):
        await Cluster.login(path)


async def test_without_a_kubeconfig_the_way_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(NoCluster, match="set KUBECONFIG"):
        await Cluster.login()
