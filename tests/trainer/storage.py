"""Storage that a test can slow down, fill up or take away, and that can hold a request of a pod.

An S3 server of ours in front of the real one. It reads a request whole, asks the test's rule, and
forwards it unchanged, so that signatures hold.
"""

import http.client
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from unittest.mock import patch

from tests.trainer.pods import TrainerPod


class Request(NamedTuple):
    """What a pod asks for: a method, and the key below the run's prefix."""

    method: str
    key: str

    def __str__(self) -> str:
        return f"{self.method} {self.key}"


class Refusal(NamedTuple):
    """An error that is answered instead of doing what was requested."""

    status: int
    code: str


class Cut(Exception):
    """The connection is closed without an answer."""


Rule = Callable[[Request], Refusal | None]
"""Decides about a request: None forwards it; it may raise ``Cut``, or wait."""


def nothing(request: Request) -> None:
    """Let a request pass."""


@dataclass
class Catch:
    """A request that is held, and with it the pod that waits for the answer."""

    caught: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    lost: bool = False
    """Whether a released request, or its answer, never arrives."""

    def hold(self) -> None:
        """Keep a request until it is released."""
        self.caught.set()
        self.released.wait()
        if self.lost:
            raise Cut


class Storage:
    """The storage of one run."""

    def __init__(self, pod: TrainerPod) -> None:
        self.rule: Rule = nothing
        """Called before a request is forwarded."""
        self.answered: Rule = nothing
        """Called after the request is done, before it is answered."""
        self.seen: list[Request] = []
        self.pod = pod
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.storage = self

    def used_by(self, pod: TrainerPod, **changes: str) -> TrainerPod:
        """Let ``pod`` use this storage, perhaps with other credentials."""
        endpoint = f"http://127.0.0.1:{self._server.server_port}"
        access = pod.workshop.access.model_copy(update={"endpoint": endpoint, **changes})
        fresh = pod.folder / "fresh"
        fresh.write_text(access.model_dump_json())
        fresh.replace(pod.folder / "access.json")
        return pod

    @contextmanager
    def catching(
        self, wanted: Callable[[Request], bool], answered: bool = False, lost: bool = True
    ) -> Iterator[Catch]:
        """Hold the first ``wanted`` request, before it is forwarded or before it is answered."""
        catch = Catch(lost=lost)

        def rule(request: Request) -> None:
            if not catch.caught.is_set() and wanted(request):
                catch.hold()

        with patch.object(self, "answered" if answered else "rule", rule):
            yield catch
            catch.released.set()

    def name(self, path: str) -> str:
        """The key in a request's path, without the run's prefix."""
        key = urllib.parse.unquote(path.partition("?")[0]).removeprefix("/").partition("/")[2]
        return key.removeprefix(self.pod.prefix)

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def between(pod: TrainerPod) -> Iterator[Storage]:
    """Put our own storage between ``pod`` and the real one."""
    storage = Storage(pod)
    storage.start()
    try:
        storage.used_by(pod)
        yield storage
    finally:
        storage.stop()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    storage: Storage

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of connections that a killed pod has left."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline()
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        storage = self.server.storage
        request = Request(self.command, storage.name(self.path))
        storage.seen.append(request)
        try:
            if (refusal := storage.rule(request)) is not None:
                self.refuse(refusal)
                return
            answer, content = self.hand_on(body)
            storage.answered(request)
            self.answer(answer, content)
        except Cut:
            self.close_connection = True

    def hand_on(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        host = urllib.parse.urlsplit(self.server.storage.pod.workshop.access.endpoint).netloc
        connection = http.client.HTTPConnection(host)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def answer(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                self.send_header(name, value)
        size = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(size or 0))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def refuse(self, refusal: Refusal) -> None:
        content = f"<Error><Code>{refusal.code}</Code><Message>said</Message></Error>".encode()
        self.send_response_only(refusal.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content)
        self.wfile.flush()
