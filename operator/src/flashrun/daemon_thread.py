"""Blocking calls in threads that do not keep the program from ending, as Ctrl-C asks it to."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")


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


def in_daemon_threads(
    work: Callable[[_Item], _Answer], items: Sequence[_Item], threads: int
) -> list[_Answer]:
    """Return the answers for ``items`` in their order; so many threads at most do the work.

    After an error no further item is begun. The first of the errors is raised when what had begun
    has ended.
    """
    left = iter(range(len(items)))
    lock = threading.Lock()
    stopped = threading.Event()
    answers: dict[int, _Answer] = {}
    errors: dict[int, BaseException] = {}

    def work_on() -> None:
        while not stopped.is_set():
            with lock:
                number = next(left, None)
            if number is None:
                return
            try:
                answers[number] = work(items[number])
            except BaseException as error:
                errors[number] = error
                stopped.set()

    workers = [
        threading.Thread(target=work_on, daemon=True) for _ in range(min(threads, len(items)))
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        stopped.set()  # an interrupt of the thread that waits
    if errors:
        raise errors[min(errors)]
    return [answers[number] for number in range(len(items))]
