"""Listening on every address of a pod, whichever IP families its cluster has."""

import contextlib
import socket


def listen_on_all_addresses(port: int) -> socket.socket:
    """Return a socket that listens on ``port`` for IPv6 and IPv4; port 0 is any port.

    Where the machine has no IPv6, it listens for IPv4.

    Raises:
        OSError: the port is in use.
    """
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
