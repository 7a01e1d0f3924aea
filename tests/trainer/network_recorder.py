"""The inside of a network namespace: a name server, a way to storage, and a record of the rest.

A program of its own, which runs in the namespace, with the arguments RECORD SOCKET HOST PORT. Every
address leads to the loopback device, so that each packet is seen and none leaves. Lines of RECORD
are ``name HOST`` and ``address IP:PORT``. HOST and PORT are those of storage, which is reached by
way of the Unix socket SOCKET.
"""

import contextlib
import select
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

NOBODY = bytes((198, 51, 100, 1))
"""What every name leads to: an address for documentation (RFC 5737)."""
_IPV4, _IPV6, _TCP, _UDP, _DNS = 0x0800, 0x86DD, 6, 17, 53
_EVERY_PROTOCOL = 3
_SYN, _ACK = 2, 16


class Relay(socketserver.BaseRequestHandler):
    """Passes bytes on to ``server.target``, until one side ends."""

    def handle(self) -> None:
        target: Any = getattr(self.server, "target")  # noqa: B009
        family = socket.AF_UNIX if isinstance(target, str) else socket.AF_INET
        with socket.socket(family) as other, contextlib.suppress(OSError):
            other.connect(target)
            while True:
                for source in select.select([self.request, other], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    (other if source is self.request else self.request).sendall(data)


class UnixRelayServer(socketserver.ThreadingUnixStreamServer):
    """Leads from a Unix socket, which namespaces share, to a TCP port."""

    daemon_threads = True
    target: tuple[str, int]


class TcpRelayServer(socketserver.ThreadingTCPServer):
    """Leads from a TCP port to a Unix socket."""

    daemon_threads = True
    target: str


def destinations(packet: bytes, protocol: int) -> Iterator[str]:
    """Yield the line about a packet that asks for a name or begins to talk to an address."""
    if protocol == _IPV4:
        transport, begin, target = packet[9], (packet[0] & 15) * 4, packet[16:20]
    elif protocol == _IPV6:
        transport, begin, target = packet[6], 40, packet[24:40]
    else:
        return
    body = packet[begin:]
    source_port, port = (int.from_bytes(body[at : at + 2]) for at in (0, 2))
    if transport == _UDP and port == _DNS:
        yield f"name {asked_name(body[8:])[0]}"
    elif ip_address(target).is_loopback or (transport == _UDP and source_port == _DNS):
        return
    elif transport == _UDP or (transport == _TCP and body[13] & (_SYN | _ACK) == _SYN):
        yield f"address {ip_address(target)}:{port}"


def asked_name(query: bytes) -> tuple[str, int]:
    """Return the name in a question to a name server, and where the question ends."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels), at + 5


def answer(query: bytes) -> bytes:
    """Return the answer to a question: one address for IPv4, and none of another kind."""
    _, end = asked_name(query)
    is_address = query[end - 4 : end - 2] == b"\0\1"
    head = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_address else b"\0\0") + b"\0\0\0\0"
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + NOBODY if is_address else b""
    return head + query[12:end] + record


def serve_names(family: int) -> None:
    """Answer every question that is asked with UDP, at any address."""
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("", _DNS))
        while True:
            query, client = server.recvfrom(4096)
            with contextlib.suppress(IndexError, OSError):
                server.sendto(answer(query), client)


def main(record: str, upstream: str, host: str, port: int) -> None:
    """Serve until this process is killed; says ``ready`` when it does."""
    for words in ("link set lo up", "route add local 0.0.0.0/0 dev lo",
                  "-6 route add local ::/0 dev lo"):  # fmt: skip
        # A kernel without IPv6 sends no such packets.
        subprocess.run(["ip", *words.split()], check=not words.startswith("-6"))
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERY_PROTOCOL))
    packets.bind(("lo", _EVERY_PROTOCOL))
    relay = TcpRelayServer(("", port), Relay)
    relay.target = upstream
    threading.Thread(target=relay.serve_forever, daemon=True).start()
    for family in (socket.AF_INET, socket.AF_INET6):
        threading.Thread(target=serve_names, args=[family], daemon=True).start()
    seen: set[str] = set()
    print("ready", flush=True)
    with Path(record).open("a") as lines:
        while True:
            packet, (_, protocol, *_) = packets.recvfrom(65536)
            with contextlib.suppress(IndexError):  # a packet that is cut short
                for line in destinations(packet, protocol):
                    if line not in seen and line != f"address {host}:{port}":
                        seen.add(line)
                        lines.write(f"{line}\n")
                        lines.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
