"""Memory that the operator no longer uses goes back to the system.

glibc gives back what is free at the end of its heap. What is free in its midst, below something
that lives longer, stays: after a look at the largest objects that are MiBs.
"""

import asyncio
import ctypes
import logging
from collections.abc import Callable
from typing import Final

INTERVAL_SECONDS: Final = 10.0

log = logging.getLogger(__name__)


async def give_back_free_memory() -> None:
    """Give free memory back now and then; never returns."""
    trim = find_trim()
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        trim()


def find_trim() -> Callable[[], object]:
    """Return the function that gives free memory back; other C libraries than glibc have none."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        log.debug("the C library has no malloc_trim")
        return lambda: None
    return lambda: trim(0)
