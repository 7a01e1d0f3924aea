"""Storage at an IPv6 address: its brackets, and a real server behind one."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from flashrun.api.storage_endpoint import in_cluster_service
from flashrun.store import Store

IPV6 = ["http://[fd00::7]", "http://[fd00::7]:80", "https://[fd00::7]:443", "http://[fd00::7]:9000"]


@pytest.mark.parametrize("endpoint", IPV6)
def test_an_ipv6_address_keeps_its_brackets(store: Store, endpoint: str) -> None:
    there = Store(store.access.replace(endpoint=endpoint))
    url = urlsplit(there._minio.presigned_get_object("bucket", "key"))
    assert url.hostname == "fd00::7"
    assert url.netloc in ("[fd00::7]", "[fd00::7]:9000")
    assert in_cluster_service(str(url.hostname)) is None


@contextmanager
def relay(port: int) -> Iterator[int]:
    """Listen at ::1, and pass everything on to ``port`` of 127.0.0.1; yield our own port."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(("127.0.0.1", port))
                open_ones.extend((here, there))
                for pair in ((here, there), (there, here)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    open_ones: list[socket.socket] = []
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for one in open_ones:
        one.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_storage_and_its_credentials_work_at_an_ipv6_address(store: Store) -> None:
    port = urlsplit(store.access.endpoint).port
    assert port is not None
    with relay(port) as local:
        there = Store(store.access.replace(endpoint=f"http://[::1]:{local}"))
        there.put_bytes("a/b", b"content")
        assert there.get_bytes("a/b") == b"content"
        limited = there.assume({"Version": "2012-10-17", "Statement": []}, 3600)
        assert limited.session_token
