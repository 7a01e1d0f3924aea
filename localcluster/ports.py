"""Free ports, chosen once and remembered in a file.

They lie below the range that the kernel uses for outgoing connections, so that a remembered port
is rarely taken while the cluster is down. A file that was removed gets the same ports again, if
they are free: buildah remembers by its address which layers a registry has.
"""

import json
import random
import socket
from dataclasses import dataclass
from pathlib import Path

from localcluster.steps import FatalError

LOWEST, HIGHEST = 20_000, 32_000


@dataclass(frozen=True)
class Ports:
    """The ports in one file, by the name of their server."""

    file: Path

    def get(self, name: str, address: str = "127.0.0.1", *, running: bool = False) -> int:
        """Return the port of a server; choose one at the first call.

        Raises:
            FatalError: the server is not `running`, and another program uses its port.
        """
        known: dict[str, int] = json.loads(self.file.read_text()) if self.file.exists() else {}
        if name not in known:
            known[name] = _pick(f"{self.file} {name}", address, set(known.values()))
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(json.dumps(known, indent=1))
        elif not running and not _free(address, known[name]):
            raise FatalError(
                f"port {known[name]}, which {name} had before, is taken by another program; stop "
                f"that program (ss -ltnp 'sport = :{known[name]}' shows it), or run `make down` "
                "and start again with new ports"
            )
        return known[name]


def _pick(server: str, address: str, taken: set[int]) -> int:
    choices = random.Random(server)
    for _ in range(1000):
        port = choices.randint(LOWEST, HIGHEST)
        if port not in taken and _free(address, port):
            return port
    raise FatalError(
        f"no port between {LOWEST} and {HIGHEST} is free on {address}; stop servers that use them"
    )


def _free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
