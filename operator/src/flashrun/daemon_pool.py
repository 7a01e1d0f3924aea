"""Several threads that do not keep the program from ending.

It loads no asyncio: containers of a pod import it before they work.
"""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")


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
