"""The cluster module against a server that misbehaves as API servers do."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from flashrun import cluster as cluster_module
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError, Conflict, Forbidden, Invalid, Unreachable

pytestmark = pytest.mark.usefixtures("_each_client")

OBJECT = {"kind": "ConfigMap", "metadata": {"name": "x", "namespace": "n"}}
MANIFEST = {"apiVersion": "v1", **OBJECT}


class Answer(NamedTuple):
    """What the server says; status 0 stands for a connection that breaks after the work."""

    status: int
    text: str = ""
    retry_after: str = ""


LOST = Answer(0)


def ok(body: Any = OBJECT) -> Answer:
    return Answer(200, json.dumps(body))


def status(code: int, reason: str = "", message: str = "said", **details: Any) -> Answer:
    body = {"kind": "Status", "reason": reason, "message": message, "details": details}
    return Answer(code, json.dumps(body))


class Server:
    """Answers each request with the next prepared answer; without one it keeps silent."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.seen: list[tuple[str, str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append((request.method, request.path))
        if not self.answers:
            await asyncio.sleep(2)
            return web.Response()
        answer = self.answers.pop(0)
        if answer.status == 0:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        headers = {"Retry-After": answer.retry_after} if answer.retry_after else {}
        return web.Response(status=answer.status, text=answer.text, headers=headers)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    handler = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    handler.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield handler
    await runner.cleanup()


def kubeconfig(folder: Path, url: str) -> Path:
    path = folder / "config"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "lab", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "lab",
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest_asyncio.fixture
async def cluster(server: Server, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with await Cluster.login(kubeconfig(tmp_path, server.url)) as connection:
        yield connection


REPEATED = [
    ("a busy server", [status(503), ok()]),
    ("a server that throttles", [status(429), ok()]),
    ("a broken server, twice", [status(500), status(500), ok()]),
    ("a lost answer", [LOST, ok()]),
]


@pytest.mark.parametrize("answers", [c[1] for c in REPEATED], ids=[c[0] for c in REPEATED])
async def test_a_status_gets_through(server: Server, cluster: Cluster, answers: list[Answer]):
    server.answers = list(answers)
    await cluster.patch_status("Job", "n", "x", {"a": 1})
    assert len(server.seen) == len(answers)


async def test_a_create_whose_answer_was_lost_finds_its_own_object(
    server: Server, cluster: Cluster
):
    server.answers = [LOST, status(409, "AlreadyExists"), ok()]
    assert await cluster.create(MANIFEST) == OBJECT
    assert [method for method, _ in server.seen] == ["POST", "POST", "GET"]


class NotAllowed(Exception):
    """What a check of writes raises."""


async def test_every_try_of_a_write_is_checked_and_no_read(server: Server, cluster: Cluster):
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == 2:
            raise NotAllowed

    checked = cluster.checking_writes(check)
    server.answers = [status(503), ok(), ok()]
    with pytest.raises(NotAllowed):
        await checked.patch_status("Job", "n", "x", {"a": 1})
    assert server.seen == [("PATCH", "/apis/batch/v1/namespaces/n/jobs/x/status")]
    await checked.get("ConfigMap", "n", "x")
    await cluster.patch_status("Job", "n", "x", {"a": 1})
    assert checks == 2


async def test_a_conflict_is_not_repeated(server: Server, cluster: Cluster):
    server.answers = [status(409, "Conflict")]
    with pytest.raises(Conflict):
        await cluster.replace(MANIFEST)


async def test_the_server_is_not_asked_before_the_time_it_named(server: Server, cluster: Cluster):
    server.answers = [status(429)._replace(retry_after="1"), ok()]
    began = time.monotonic()
    await cluster.get("ConfigMap", "n", "x")
    assert time.monotonic() - began > 0.75


@pytest.mark.parametrize(
    ("asked", "pause"),
    [("3600", 30), ("9" * 400, 30), ("-1", 0.2), ("²", 0.2), ("1e9", 0.2), ("nan", 0.2),
     ("Wed, 21 Oct 2099 07:28:00 GMT", 0.2)],
)  # fmt: skip
async def test_a_server_cannot_make_a_client_wait_for_long(
    server: Server, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, asked: str, pause: float
):
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    monkeypatch.setattr("random.uniform", lambda low, high: 1.0)
    server.answers = [status(429)._replace(retry_after=asked), ok()]
    await cluster.get("ConfigMap", "n", "x")
    assert pauses == [pause]


async def test_a_list_that_expires_between_pages_begins_again(server: Server, cluster: Cluster):
    page = {"items": [OBJECT], "metadata": {"continue": "more"}}
    whole = {"items": [OBJECT, OBJECT], "metadata": {}}
    server.answers = [ok(page), status(410, "Expired"), ok(whole)]
    assert len(await cluster.list("ConfigMap", "n")) == 2


ENDS = [
    ("for ever busy", [status(503)] * 4, Unreachable, "not able to get configmaps x"),
    ("no JSON", [Answer(200, "<html>")], Unreachable, "is a proxy in between?"),
    ("expired login", [status(401)], Forbidden, "log in again"),
    (
        "no right",
        [status(403, "Forbidden", 'User "jane" cannot get resource')],
        Forbidden,
        "you may not get configmaps in namespace n; ask the cluster's administrator",
    ),
    (
        "a policy",
        [status(403, "Forbidden", 'admission webhook "x" denied:\n too big')],
        Forbidden,
        'policy refuses configmaps x in namespace n: admission webhook "x" denied: too big',
    ),
    (
        "fields",
        [status(422, "Invalid", causes=[{"field": "spec.a", "message": "Required"}])],
        Invalid,
        "spec.a: Required",
    ),
]


@pytest.mark.parametrize(
    ("answers", "kind", "sentence"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS]
)
async def test_what_does_not_work_is_told_in_one_sentence(
    server: Server,
    cluster: Cluster,
    answers: list[Answer],
    kind: type[ClusterError],
    sentence: str,
):
    server.answers = list(answers)
    with pytest.raises(ClusterError) as caught:
        await cluster.get("ConfigMap", "n", "x")
    assert type(caught.value) is kind
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://127.0.0.1:1", "the connection is refused"),
        ("http://no-such-host.invalid", "does not resolve"),
    ],
)
async def test_a_server_that_is_not_there_is_named_with_its_context(
    tmp_path: Path, url: str, cause: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_module, "TRIES", 1)
    async with await Cluster.login(kubeconfig(tmp_path, url)) as absent:
        with pytest.raises(Unreachable, match=cause) as caught:
            await absent.get("ConfigMap", "n", "x")
    assert f"{url} of context lab" in str(caught.value)
    assert "kubectl config current-context" in str(caught.value)
    assert caught.value.temporary


async def test_a_server_that_never_answers_ends_in_time(
    server: Server, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_module, "TRIES", 1)
    monkeypatch.setattr(cluster_module, "CALL_SECONDS", 0.3)

    with pytest.raises(Unreachable, match="no answer in time"):
        await cluster.get("ConfigMap", "n", "x")
