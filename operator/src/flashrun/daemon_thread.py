"""A blocking call in a thread that does not keep the program from ending, as Ctrl-C asks it to."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

_Answer = TypeVar("_Answer")


async def in_daemon_thread(call: Callable[[], _Answer]) -> _Answer:
    """Return what ``call`` returns, or raise what it raises.

    A call that hangs does not keep the program from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Callable[[], _Answer]] = loop.create_future()

    def finish(outcome: Callable[[], _Answer]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(outcome))

    def work() -> None:
        try:
            answer = call()
        except BaseException as error:  # also an exit: the thread ends, and who waits must know
            failure = error

            def fail() -> _Answer:
                raise failure

            finish(fail)
        else:
            finish(lambda: answer)

    threading.Thread(target=work, daemon=True).start()
    return (await future)()
