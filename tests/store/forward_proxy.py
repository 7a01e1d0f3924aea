"""A forward proxy on loopback that leads every name to one server, and notes who asked for what."""

import contextlib
import http.client
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class ForwardProxy(ThreadingHTTPServer):
    """Forwards to ``behind``, as host:port, whatever host is asked for."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.hosts: set[str] = set()
        self.users: set[str] = set()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ForwardProxy

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def do_CONNECT(self) -> None:
        self._note(self.path.rpartition(":")[0])
        host, _, port = self.server.behind.partition(":")
        with socket.create_connection((host, int(port))) as server:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                self._pass_on(server)
        self.close_connection = True

    def _pass_on(self, server: socket.socket) -> None:
        while True:
            ready, _, _ = select.select([self.connection, server], [], [])
            for source in ready:
                data = source.recv(65536)
                if not data:
                    return
                (server if source is self.connection else self.connection).sendall(data)

    def _forward(self) -> None:
        url = urlsplit(self.path)
        self._note(url.hostname or "")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        target = url._replace(scheme="", netloc="").geturl()
        connection = http.client.HTTPConnection(self.server.behind, timeout=30)
        connection.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if not name.lower().startswith("proxy-"):
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    def do_GET(self) -> None:
        self._forward()

    def do_HEAD(self) -> None:
        self._forward()

    def do_PUT(self) -> None:
        self._forward()

    def do_POST(self) -> None:
        self._forward()

    def do_DELETE(self) -> None:
        self._forward()

    def _note(self, host: str) -> None:
        self.server.hosts.add(host)
        if user := self.headers.get("Proxy-Authorization"):
            self.server.users.add(user)


@contextmanager
def forward_proxy(behind: str) -> Iterator[ForwardProxy]:
    """Serve on loopback until the end of the context."""
    with ForwardProxy(behind) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
