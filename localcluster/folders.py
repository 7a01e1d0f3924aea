"""Folders of the local cluster.

The cache holds what takes long to make and can be used again (programs, base images, layers). The
state holds what one running cluster needs; `down` removes it.
"""

import os
from pathlib import Path


def cache() -> Path:
    """Return the cache; it survives `down` and may be deleted while no cluster runs."""
    return _home("XDG_CACHE_HOME", ".cache") / "flashrun"


def state() -> Path:
    """Return the state of the cluster: pids, logs, certificates, data."""
    return _home("XDG_STATE_HOME", ".local/state") / "flashrun" / "local"


def logs() -> Path:
    """Return the folder of logs, one per command; outside the state, so that `down` keeps it."""
    return _home("XDG_STATE_HOME", ".local/state") / "flashrun" / "logs"


def sockets() -> Path:
    """Return the folder of sockets; it is short, because a socket path has at most 107 bytes."""
    return Path("/run/flashrun-local")


def repository() -> Path:
    """Return the checkout that this package runs from."""
    return Path(__file__).resolve().parent.parent


def _home(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default)
