"""The Python client: runs from notebooks and scripts, with the rights of the kubeconfig.

It is the command line without a terminal: it stands on the same functions, prints nothing, and
raises ``FlashRunError`` with the sentences that ``flash`` prints.
"""

from flashrun.client.async_client import AsyncClient, AsyncRun
from flashrun.client.client_errors import (
    DoesNotExist,
    FlashRunError,
    InvalidConfig,
    InvalidRequest,
    MissingPackage,
    RunFailed,
)
from flashrun.client.run_state import Checkpoint, RunState
from flashrun.client.sync_client import Client, Run

__all__ = [
    "AsyncClient",
    "AsyncRun",
    "Checkpoint",
    "Client",
    "DoesNotExist",
    "FlashRunError",
    "InvalidConfig",
    "InvalidRequest",
    "MissingPackage",
    "Run",
    "RunFailed",
    "RunState",
]
