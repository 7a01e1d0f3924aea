"""A gate before a real S3 server: it can refuse credentials (STS), and make reads slow."""

import contextlib
import select
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StorageGate(socketserver.ThreadingTCPServer):
    """Passes bytes on to ``host:port``; S3 sends STS requests as ``POST /``."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passage)
        self.behind = (host, port)
        self.sts = True
        self.refused = 0
        self.pause = 0.0
        """Seconds for which each read of an object waits."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is not an error."""


class _Passage(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        gate = self.server
        assert isinstance(gate, StorageGate)
        with socket.create_connection(gate.behind) as server, contextlib.suppress(OSError):
            while True:
                ready, _, _ = select.select([self.request, server], [], [])
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    from_client = source is self.request
                    if from_client and not gate.sts and data.startswith((b"POST / ", b"POST /?")):
                        gate.refused += 1
                        return
                    if from_client and gate.pause and data.startswith(b"GET /"):
                        time.sleep(gate.pause)
                    (server if from_client else self.request).sendall(data)


@contextmanager
def storage_gate(endpoint: str) -> Iterator[StorageGate]:
    """Open a gate before the S3 server at ``endpoint``."""
    host, _, port = endpoint.rpartition("//")[2].partition(":")
    with StorageGate(host, int(port)) as gate:
        thread = threading.Thread(target=gate.serve_forever, daemon=True)
        thread.start()
        try:
            yield gate
        finally:
            gate.shutdown()
            thread.join()
