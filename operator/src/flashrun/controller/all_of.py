"""Several calls at the same time, none of which is left behind."""

import asyncio
from collections.abc import Awaitable
from typing import Any


async def all_of(*work: Awaitable[Any] | None) -> list[Any]:
    """Await all of ``work`` at the same time, and return the results in its order.

    None stands for nothing to do. When one fails, the others still end, so that nothing goes on
    behind the caller; then the first error in the order of ``work`` is raised.
    """
    tasks = [asyncio.ensure_future(item) for item in work if item is not None]
    ended = iter(await asyncio.gather(*tasks, return_exceptions=True))
    results = [None if item is None else next(ended) for item in work]
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
