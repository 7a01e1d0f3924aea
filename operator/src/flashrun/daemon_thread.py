"""A blocking call in a thread that does not keep the program from ending, as Ctrl-C asks it to."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

_Answer = TypeVar("_Answer")


async def in_daemon_thread(call: Callable[[], _Answer]) -> _Answer:
    """Return what ``call`` returns; a call that hangs does not keep the program from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Answer] = loop.create_future()

    def finish(set_outcome: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(lambda: None if future.done() else set_outcome())

    def work() -> None:
        try:
            answer = call()
        except Exception as error:
            failure = error
            finish(lambda: future.set_exception(failure))
        else:
            finish(lambda: future.set_result(answer))

    threading.Thread(target=work, daemon=True).start()
    return await future
