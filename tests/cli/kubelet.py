"""A kubelet that serves nothing but logs, as the test writes them, cuts them and rotates them."""

import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from localcluster.pki import Leaf
from tests.json_server import server_context

NODE = "node-of-tests"
_BEGAN = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass
class Container:
    """The log file of one container, and the streams that read it."""

    lines: list[tuple[datetime, str]] = field(default_factory=list)
    ended: bool = False
    cuts: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    readings: list[dict[str, str]] = field(default_factory=list)
    """The query of each reading."""

    def write(self, *texts: str, seconds: float = 0.25) -> None:
        """Append lines, each a little later than the one before."""
        with self.changed:
            for text in texts:
                last = self.lines[-1][0] if self.lines else _BEGAN
                self.lines.append((last + timedelta(seconds=seconds), text))
            self.changed.notify_all()

    def end(self) -> None:
        """End: nothing more is written, and streams end after the last line."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def cut(self) -> None:
        """End every stream where it is, as a restarting API server does."""
        with self.changed:
            self.cuts += 1
            self.changed.notify_all()

    def rotate(self) -> None:
        """Begin a new file: what it held is no longer served, and streams end."""
        with self.changed:
            del self.lines[:]
            self.cuts += 1
            self.changed.notify_all()

    def stream(self, since: datetime | None, *, follow: bool) -> Any:
        """Yield the file's lines from ``since`` on, and new ones when ``follow``."""
        position, cuts = 0, self.cuts
        while True:
            with self.changed:
                while position >= len(self.lines) and self.cuts == cuts:
                    if self.ended or not follow:
                        return
                    self.changed.wait(60)
                if self.cuts != cuts:
                    return
                moment, text = self.lines[position]
            position += 1
            if since is None or moment >= since:
                yield moment, text


class Kubelet:
    """The HTTPS server that the API server asks for logs."""

    def __init__(self, leaf: Leaf) -> None:
        self.containers: dict[str, Container] = {}
        handler = type("Handler", (_Handler,), {"containers": self.containers})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.socket = server_context(leaf).wrap_socket(
            self._server.socket, server_side=True
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def container(self, pod: str, name: str = "trainer") -> Container:
        return self.containers.setdefault(f"{pod}/{name}", Container())

    def stop(self) -> None:
        for container in self.containers.values():
            container.end()
        self._server.shutdown()
        self._server.server_close()

    def node(self) -> dict[str, Any]:
        """Return the Node that this kubelet says it is."""
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}

    def node_status(self) -> str:
        address = {"type": "InternalIP", "address": "127.0.0.1"}
        endpoints = {"kubeletEndpoint": {"Port": self.port}}
        return json.dumps({"status": {"addresses": [address], "daemonEndpoints": endpoints}})


class _Handler(BaseHTTPRequestHandler):
    containers: dict[str, Container]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        _, _, _, pod, name = url.path.split("/")
        asked = {key: values[0] for key, values in parse_qs(url.query).items()}
        container = self.containers[f"{pod}/{name}"]
        container.readings.append(asked)
        since = asked.get("sinceTime")
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        start = datetime.fromisoformat(since) if since else None
        for moment, text in container.stream(start, follow=asked.get("follow") == "true"):
            stamp = f"{moment:%Y-%m-%dT%H:%M:%S.%f}000Z " if "timestamps" in asked else ""
            data = f"{stamp}{text}\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        pass
