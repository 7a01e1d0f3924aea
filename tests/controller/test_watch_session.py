"""What is listed and watched goes to us, within bounds, and kopf gets positions alone."""

import asyncio
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from msgspec import Raw

from flashrun.api import names
from flashrun.cluster_login import Connection
from flashrun.cluster_requests import RESOURCES
from flashrun.controller import watch_session as watch_session_module
from flashrun.controller.watch import Watch
from flashrun.controller.watch_session import Page, Receiver, watch_session
from flashrun.controller.watched_objects import (
    WATCHED_KINDS,
    WatchedObject,
    read_text,
    watched_object,
)
from tests.controller.large_objects import PARAMS, large_labels, large_run, post
from tests.controller.stage import World
from tests.controller.test_watch import until

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"
KINDS = {RESOURCES[kind].plural: kind for kind in WATCHED_KINDS}


@dataclass
class Recorder(Receiver):
    """Keeps of what it gets what the operator would keep."""

    listed: list[WatchedObject] = field(default_factory=list)
    ends: list[str | None] = field(default_factory=list)
    events: list[tuple[str, WatchedObject]] = field(default_factory=list)
    opened_watches: int = 0
    misses: int = 0

    def page(self, kind: str, namespace: str, page: Page) -> None:
        self.listed += [watched_object(kind, raw) for raw in page.objects]
        self.ends.append(page.last_version)

    def opened(self, kind: str, namespace: str) -> None:
        self.opened_watches += 1

    def event(self, kind: str, namespace: str, change: str, raw: Raw, version: str) -> None:
        self.events.append((change, watched_object(kind, raw)))

    def missed(self, kind: str, namespace: str) -> None:
        self.misses += 1


async def test_kopf_gets_positions_of_lists_and_watches_and_other_answers_as_they_are(
    world: World,
):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    recorder = Recorder()
    context = watch_session(await world.cluster.connection(), KINDS, recorder)
    async with context.aiohttp_session as session:
        for kind in ("FlashRun", "Job"):
            url = f"{context.server}{RESOURCES[kind].path(world.namespace, '')}"
            recorder.listed, recorder.events = [], []
            async with session.get(f"{url}?limit=25") as response:
                listed = await response.json()
            assert listed["items"] == []
            assert listed["metadata"]["resourceVersion"] == recorder.ends[-1]
            async with session.get(f"{url}?watch=true&timeoutSeconds=1") as response:
                lines = [json.loads(line) async for line in response.content.iter_chunked(1024)]
            [item] = recorder.listed
            assert item.text is not None
            assert read_text(kind, item.text)["spec"]
            assert ("ADDED", item) in recorder.events
            for line in lines:
                assert line["type"] == "BOOKMARK"
                assert line["object"].keys() == {"metadata"}
                assert line["object"]["metadata"].keys() == {"resourceVersion"}
            assert str(item.version) in {
                line["object"]["metadata"]["resourceVersion"] for line in lines
            }
        assert recorder.opened_watches == 2
        assert recorder.misses == 0
        async with session.get(f"{context.server}/apis/flashrun.dev/v1alpha1") as response:
            assert (await response.json())["kind"] == "APIResourceList"


async def test_a_list_of_several_pages_ends_once(world: World):
    for number in range(5):
        await world.submit(f"flash-{number}-listed")
    recorder = Recorder()
    context = watch_session(await world.cluster.connection(), KINDS, recorder)
    url = f"{context.server}{RESOURCES['FlashRun'].path(world.namespace, '')}?limit=2"
    following = ""
    async with context.aiohttp_session as session:
        for _ in range(3):
            async with session.get(f"{url}{following}") as response:
                metadata = (await response.json())["metadata"]
            following = f"&continue={metadata.get('continue')}"
    assert [item.name for item in recorder.listed] == [f"flash-{n}-listed" for n in range(5)]
    assert recorder.ends == [None, None, metadata["resourceVersion"]]


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
        connection = Connection(str(server.make_url("/")))
        session = watch_session(connection, {}, Recorder()).aiohttp_session
        async with session, session.get(server.make_url("/x")) as response:
            assert float(response.headers["Retry-After"]) == seconds
            assert (await response.json())["details"]["retryAfterSeconds"] == 30


async def test_of_pods_with_very_many_labels_little_is_read_and_all_of_the_others(world: World):
    """They are listed one by one when a page is too long."""
    own = {names.RUN_LABEL: RUN, names.RUN_UID_LABEL: "uid"}
    for name in ("a", "b", "c", "d", "e"):
        metadata = {"name": name, "namespace": world.namespace}
        metadata["labels"] = own if name == "e" else large_labels(own)
        spec = {"containers": [{"name": "c", "image": "i"}]}
        post(world, "Pod", json.dumps({"metadata": metadata, "spec": spec}))
    recorder = Recorder()
    context = watch_session(await world.cluster.connection(), KINDS, recorder)
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
        assert listed["metadata"]["resourceVersion"] == recorder.ends[-1]
        assert [item.name for item in recorder.listed] == ["a", "b", "c", "d", "e"]
        assert all((item.run_name, item.run_uid) == (RUN, "uid") for item in recorder.listed)
        assert peak < 6 * 1024 * 1024
        assert kept < 1024 * 1024
        async with session.get(f"{url}&watch=true&timeoutSeconds=60") as response:
            async for _ in response.content.iter_chunked(1024):
                if len(recorder.events) == 5:
                    break
        seen = [item for change, item in recorder.events if change == "ADDED"]
        assert sorted(item.name for item in seen) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("case", PARAMS)
async def test_of_a_run_of_the_largest_size_the_name_is_known_and_nothing_is_kept(
    world: World, case: str
):
    post(world, names.KIND, large_run(world.namespace, case))
    recorder = Recorder()
    context = watch_session(await world.cluster.connection(), KINDS, recorder)
    url = f"{context.server}{RESOURCES['FlashRun'].path(world.namespace, '')}"
    async with context.aiohttp_session as session:
        async with session.get(f"{url}?limit=25") as response:
            assert (await response.json())["metadata"]["resourceVersion"]
        async with session.get(f"{url}?watch=true&timeoutSeconds=1") as response:
            async for _ in response.content.iter_chunked(1024):
                pass
    [item] = [item for change, item in recorder.events if change == "ADDED"]
    assert (item.name, item.text) == (f"flash-1-{case}", None)


async def test_a_line_that_is_too_long_is_left_out(world: World, monkeypatch: pytest.MonkeyPatch):
    await world.submit(RUN)
    large = {"id": "org/env", "params": {"a": "x" * 9_000}}
    await world.submit("flash-2-large", environment=large)
    monkeypatch.setattr(watch_session_module, "OBJECT_BYTES", 8_000)
    recorder = Recorder()
    context = watch_session(await world.cluster.connection(), KINDS, recorder)
    url = f"{context.server}{RESOURCES['FlashRun'].path(world.namespace, '')}"
    async with context.aiohttp_session as session:
        async with session.get(f"{url}?watch=true&timeoutSeconds=1") as response:
            async for _ in response.content.iter_chunked(1024):
                pass
        assert [item.name for change, item in recorder.events if change == "ADDED"] == [RUN]
        assert recorder.misses == 1
        async with session.get(f"{url}?limit=25") as response:
            assert (await response.json())["metadata"]["resourceVersion"]
        assert [item.name for item in recorder.listed] == [RUN]
        assert recorder.misses == 2


async def test_a_watch_keeps_nothing_of_the_spec_of_a_run(world: World):
    deleted: list[Any] = []
    seen: list[Any] = []
    connection = await world.cluster.connection()
    watch = Watch(
        lambda: (world.namespace,),
        lambda: connection,
        lambda key, _: seen.append(key),
        deleted.append,
    )
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


def event_line(name: str, text: str = "") -> bytes:
    metadata = {
        "name": name, "namespace": "team", "uid": name, "resourceVersion": "7",
        "annotations": {"note": text},
    }  # fmt: skip
    event = {"type": "MODIFIED", "object": {"metadata": metadata, "spec": {}, "status": {}}}
    return json.dumps(event).encode() + b"\n"


@asynccontextmanager
async def watched(pieces: list[bytes]) -> AsyncIterator[tuple[Recorder, AsyncIterator[bytes]]]:
    """A watch that gets ``pieces``, and then nothing more; what it has recorded, and its lines."""
    open_ended = asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        await open_ended.wait()
        return response

    app = web.Application()
    app.router.add_get("/apis/namespaces/team/flashruns", serve)
    recorder = Recorder()
    async with TestServer(app) as server:
        connection = Connection(str(server.make_url("/")))
        session = watch_session(connection, KINDS, recorder).aiohttp_session
        url = server.make_url("/apis/namespaces/team/flashruns?watch=true")
        async with session, session.get(url) as response:
            yield recorder, response.content.iter_chunked(1024)
            open_ended.set()


@pytest.mark.parametrize("size", [1, 7, 500, 100_000])
async def test_events_are_read_in_pieces_of_any_size(size: int) -> None:
    names_of_runs = ["a", "b", "c"]
    text = b"".join(map(event_line, names_of_runs)) + b"not JSON\n" + event_line("d")
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    async with watched(pieces) as (recorder, lines):
        for _ in range(4):
            await anext(lines)
        assert [item.name for _, item in recorder.events] == [*names_of_runs, "d"]
        assert recorder.misses == 1


async def test_a_watch_that_is_quiet_keeps_nothing_of_its_last_event() -> None:
    size = 1024 * 1024
    pieces = [event_line("a"), event_line("b", "x" * size)]
    async with watched(pieces) as (recorder, lines):
        await anext(lines)
        gc.collect()
        tracemalloc.start()
        try:
            while len(recorder.events) < 2:
                await anext(lines)
            pieces.clear()
            waiting = asyncio.create_task(anext(lines))
            await asyncio.sleep(0.2)
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            waiting.cancel()
    assert kept < size / 4
    assert peak > size
