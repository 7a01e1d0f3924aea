"""The threads in which the operator calls S3, apart from those of the Kubernetes client.

asyncio's own threads resolve the host name of the API server. A store that does not answer would
occupy them, and the lease could not be renewed.
"""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

THREADS: Final = 16

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_POOL: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="storage")
_HEARTBEAT_POOL: Final = ThreadPoolExecutor(1, thread_name_prefix="heartbeats")


async def call_storage(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Return what ``function`` returns in a thread for storage."""
    return await _run(_POOL, function, *args, **kwargs)


async def call_heartbeats(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Return what ``function`` returns in the thread that reads heartbeats.

    It has a thread of its own: it finds out whether storage answers, also while all others wait.
    """
    return await _run(_HEARTBEAT_POOL, function, *args, **kwargs)


async def _run(
    pool: ThreadPoolExecutor,
    function: Callable[Arguments, Result],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Result:
    loop = asyncio.get_running_loop()
    # With the context of the caller: lines that are logged name its run.
    context = contextvars.copy_context()
    return await loop.run_in_executor(pool, lambda: context.run(function, *args, **kwargs))
