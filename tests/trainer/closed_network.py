"""A network in which only storage answers, and which names everything else that is asked for.

Where this process may make one (root on Linux), it is a network namespace: every address leads to
its loopback device, on which each packet is seen, whoever sends it, and a name server gives every
name the address of nobody. Anywhere else Python's audit hooks refuse and record. That is weaker:
programs and libraries that open sockets without Python are neither seen nor stopped.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from tests.trainer.network_recorder import Relay, UnixRelayServer

_MARK = "192.0.2.255"
"""An address for documentation (RFC 5737) to which only this module sends."""
_SECONDS = 30
_ports = count(9)
_HOOK = """
import ipaddress, socket, sys

def look(event, arguments):
    if event == "socket.getaddrinfo" and not is_address(arguments[0]):
        note("name", arguments[0])
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        note("address", *arguments[1][:2])

def is_address(host):
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False

def note(kind, host, port=None):
    host = host.decode() if isinstance(host, bytes) else host
    if not host or host in HOSTS:
        return
    with open(RECORD, "a") as lines:
        lines.write(f"{kind} {host}" + (f":{port}" if port else "") + "\\n")
    raise socket.gaierror("refused") if kind == "name" else ConnectionRefusedError("refused")

sys.addaudithook(look)
"""


@dataclass(frozen=True)
class ClosedNetwork:
    """How a process gets into the network, and what was asked for in it."""

    record: Path
    sees_everything: bool
    """Whether also what does not use Python is seen."""
    prefix: tuple[str, ...] = ()
    """Words before a command."""
    variables: Mapping[str, str] = field(default_factory=dict)

    def tried(self) -> set[str]:
        """Return ``name HOST`` and ``address IP:PORT`` of everything but storage."""
        marker = ""
        if self.sees_everything:
            # Packets are seen in their order: once this one is, all before it are.
            port = next(_ports)
            marker = f"address {_MARK}:{port}"
            send = f"echo >/dev/udp/{_MARK}/{port}"
            subprocess.run([*self.prefix, "bash", "-c", send], check=True)
        deadline = time.monotonic() + _SECONDS
        while marker not in (seen := {"", *self.record.read_text().splitlines()}):
            assert time.monotonic() < deadline, "the recorder does not answer"
            time.sleep(0.02)
        return {line for line in seen if line and not line.startswith(f"address {_MARK}:")}


def has_namespaces() -> bool:
    """Return whether this process may make a network namespace, and has the programs for it."""
    if sys.platform != "linux" or not all(map(shutil.which, ("ip", "nsenter", "unshare"))):
        return False
    return subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0


@contextmanager
def namespace(folder: Path, endpoint: str) -> Iterator[ClosedNetwork]:
    """Make a network namespace from which ``endpoint`` alone can be reached."""
    host, port, record = *_address(endpoint), _empty_record(folder)
    way = folder / "storage.sock"
    with UnixRelayServer(str(way), Relay) as relay:
        relay.target = (host, port)
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        program = Path(__file__).with_name("network_recorder.py")
        inside = subprocess.Popen(
            ["unshare", "--net", sys.executable, program, record, way, host, str(port)],
            stdout=subprocess.PIPE,
        )
        try:
            assert inside.stdout is not None
            assert inside.stdout.readline() == b"ready\n"
            prefix = ("nsenter", f"--net=/proc/{inside.pid}/ns/net", "--")
            yield ClosedNetwork(record, sees_everything=True, prefix=prefix)
        finally:
            inside.kill()
            inside.communicate()
            relay.shutdown()


@contextmanager
def hooked(folder: Path, endpoint: str) -> Iterator[ClosedNetwork]:
    """Refuse and record what Python connects to and looks up."""
    record, hosts = _empty_record(folder), {_address(endpoint)[0], "localhost", "127.0.0.1", "::1"}
    hooks = folder / "hooks"
    hooks.mkdir()
    values = f"HOSTS, RECORD = {hosts!r}, {str(record)!r}\n"
    (hooks / "sitecustomize.py").write_text(values + _HOOK)
    path = os.pathsep.join([str(hooks), *filter(None, [os.environ.get("PYTHONPATH")])])
    yield ClosedNetwork(record, sees_everything=False, variables={"PYTHONPATH": path})


def _address(endpoint: str) -> tuple[str, int]:
    url = urlsplit(endpoint)
    assert url.hostname is not None
    return url.hostname, url.port or {"http": 80, "https": 443}[url.scheme]


def _empty_record(folder: Path) -> Path:
    record = folder / "asked-for"
    record.touch()
    return record
