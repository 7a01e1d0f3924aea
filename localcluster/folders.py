"""Where things are kept.

The cache holds what is dear to make and safe to keep (programs, base images, layers); the
state holds what one running cluster needs, and `down` removes it.
"""

import os
from pathlib import Path


def cache() -> Path:
    """Programs, base images and layers; kept by `down`, safe to delete when it is not running."""
    return _home("XDG_CACHE_HOME", ".cache") / "flashrun"


def state() -> Path:
    """Everything of the one local cluster: pids, logs, certificates, data."""
    return _home("XDG_STATE_HOME", ".local/state") / "flashrun" / "local"


def logs() -> Path:
    """One file a command; outside the state, so that the log of `down` survives `down`."""
    return _home("XDG_STATE_HOME", ".local/state") / "flashrun" / "logs"


def sockets() -> Path:
    """A short path, because a socket's name must fit into 107 bytes."""
    return Path("/run/flashrun-local")


def repository() -> Path:
    """The checkout this package is run from."""
    return Path(__file__).resolve().parent.parent


def _home(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default)
