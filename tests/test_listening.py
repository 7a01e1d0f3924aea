"""What a pod listens on: IPv6 and IPv4, with one port."""

import socket

import pytest

from flashrun.listening import listen_on_all_addresses

LOOPBACKS = ["127.0.0.1", *(["::1"] if socket.has_dualstack_ipv6() else [])]


@pytest.mark.parametrize("address", LOOPBACKS)
def test_both_families_reach_the_same_port(address: str) -> None:
    with listen_on_all_addresses(0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((address, port), timeout=10):
            listener.accept()[0].close()


def test_a_machine_without_ipv6_listens_for_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: tuple) -> None:
        if self.family is socket.AF_INET6:
            raise OSError("Address family not supported by protocol")
        bind(self, address)

    bind = socket.socket.bind
    monkeypatch.setattr(socket.socket, "bind", refuse)
    with listen_on_all_addresses(0) as listener:
        assert listener.family is socket.AF_INET


def test_a_port_in_use_is_an_error() -> None:
    with listen_on_all_addresses(0) as listener, pytest.raises(OSError, match="in use"):
        listen_on_all_addresses(listener.getsockname()[1])
