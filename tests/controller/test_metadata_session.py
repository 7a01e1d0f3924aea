"""kopf gets the metadata of runs, Jobs and pods, and nothing else that a tenant wrote."""

import asyncio
import gc
import json
import tracemalloc
from typing import Any

import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from flashrun.api import names
from flashrun.cluster_requests import RESOURCES
from flashrun.controller.metadata_session import metadata_session
from flashrun.controller.served_namespaces import WATCHED_KINDS
from flashrun.controller.watch import Watch
from tests.controller.large_objects import large_labels, post
from tests.controller.stage import World
from tests.controller.test_watch import until

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"


async def connection_of(world: World) -> kopf.ConnectionInfo:
    connection = await world.cluster.connection()
    return kopf.ConnectionInfo(
        server=connection.server,
        ca_path=connection.ca_path,
        certificate_path=connection.certificate_path,
        private_key_path=connection.key_path,
        token=connection.token,
    )


async def test_lists_and_watches_have_metadata_alone_and_other_answers_are_whole(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    plurals = frozenset(RESOURCES[kind].plural for kind in WATCHED_KINDS)
    context = metadata_session(await connection_of(world), plurals)

    async def read(path: str) -> Any:
        url = f"{context.server}{path}"
        async with context.aiohttp_session.get(url) as response:
            assert response.status == 200
            return json.loads(await response.content.readline())

    async with context.aiohttp_session:
        for kind in ("FlashRun", "Job"):
            path = RESOURCES[kind].path(world.namespace, "")
            listed = await read(path)
            assert listed["kind"] == "PartialObjectMetadataList"
            assert listed["metadata"]["resourceVersion"]
            watched = await read(f"{path}?watch=true&timeoutSeconds=5")
            for item in (*listed["items"], watched["object"]):
                assert item.keys() <= {"apiVersion", "kind", "metadata"}
                assert item["metadata"]["uid"]
        served = await read("/apis/flashrun.dev/v1alpha1")
        assert served["kind"] == "APIResourceList"


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("3600", 30), ("2", 2), ("Wed, 21 Oct 2099 07:28:00 GMT", 0), ("nan", 0)],
)
async def test_what_asks_kopf_to_wait_is_bounded(asked: str, seconds: float):
    async def refuse(_: web.Request) -> web.Response:
        details = {"retryAfterSeconds": 3600}
        headers = {"Retry-After": asked}
        return web.json_response({"details": details}, status=429, headers=headers)

    app = web.Application()
    app.router.add_get("/x", refuse)
    async with TestServer(app) as server:
        connection = kopf.ConnectionInfo(server=str(server.make_url("/")), insecure=True)
        session = metadata_session(connection, frozenset()).aiohttp_session
        async with session, session.get(server.make_url("/x")) as response:
            assert float(response.headers["Retry-After"]) == seconds
            assert (await response.json())["details"]["retryAfterSeconds"] == 30


async def test_kopf_gets_little_of_pods_with_very_many_labels_and_all_of_the_others(world: World):
    """They are listed one by one when a page is too long."""
    own = {names.RUN_LABEL: RUN, names.RUN_UID_LABEL: "uid"}
    for name in ("a", "b", "c", "d", "e"):
        metadata = {"name": name, "namespace": world.namespace}
        metadata["labels"] = own if name == "e" else large_labels(own)
        spec = {"containers": [{"name": "c", "image": "i"}]}
        post(world, "Pod", json.dumps({"metadata": metadata, "spec": spec}))
    context = metadata_session(await connection_of(world), frozenset({"pods"}))
    async with context.aiohttp_session as session:
        url = f"{context.server}{RESOURCES['Pod'].path(world.namespace)}?limit=25"
        gc.collect()
        tracemalloc.start()
        try:
            async with session.get(url) as response:
                listed = await response.json()
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        items = [item["metadata"] for item in listed["items"]]
        assert [item["name"] for item in items] == ["a", "b", "c", "d", "e"]
        assert all(item["labels"] == own for item in items)
        assert listed["metadata"]["resourceVersion"]
        assert peak < 6 * 1024 * 1024
        assert kept < 1024 * 1024
        async with session.get(f"{url}&watch=true&timeoutSeconds=5") as response:
            lines = [json.loads(line) async for line in response.content.iter_chunked(1024)]
        assert [line["object"]["metadata"]["labels"] for line in lines] == [own] * 5


async def test_a_watch_keeps_nothing_of_the_spec_of_a_run(world: World):
    deleted: list[Any] = []
    seen: list[Any] = []
    connection = await world.cluster.connection()
    watch = Watch(lambda: (world.namespace,), lambda: connection, seen.append, deleted.append)
    watch.start()
    try:
        await world.submit(RUN)
        await until(lambda: seen)
        await world.cluster.delete("FlashRun", world.namespace, RUN)
        await until(lambda: deleted)
    finally:
        watch.stop()
        await asyncio.to_thread(watch._thread.join, 30)
    [body] = deleted
    assert body["metadata"]["name"] == RUN
    assert not body.keys() & {"spec", "status"}
