"""An event loop in a thread of its own, for calls that wait.

A notebook runs a loop already, in which nothing may wait for another one. And credentials of
storage are renewed between two calls, which needs a loop that goes on.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent import futures
from typing import Any, Final, TypeVar

Answer = TypeVar("Answer")
STOP_SECONDS: Final = 5.0
"""How long stopping waits for what is still running, and an interrupt for what it has cancelled."""


class LoopStopped(RuntimeError):
    """The loop was stopped, before a call or during it."""


class LoopThread:
    """A loop that runs until ``stop``; it does not keep the program from ending."""

    def __init__(self) -> None:
        self._running = threading.Event()
        self._stopping = False
        self._lock = threading.RLock()
        """Held while something is given to the loop: after ``stop`` nobody would take it."""
        self._thread = threading.Thread(target=self._work, name="flashrun-client", daemon=True)
        self._thread.start()
        self._running.wait()

    @property
    def alive(self) -> bool:
        """Whether calls can be made; in a forked process there is no such thread."""
        return not self._stopping and self._thread.is_alive()

    def run(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        """Return what ``call`` returns; an interrupt, as by Ctrl-C, cancels it.

        The interrupt is raised when the call has put its things in order.

        Raises:
            LoopStopped: the loop was stopped, maybe while this waited.
        """
        if not self.alive:  # in a forked process nobody would release the lock
            call.close()
            raise LoopStopped("the loop was stopped")
        begun: list[asyncio.Task[Any]] = []
        interrupted = False
        answer: futures.Future[Answer] | None = None

        async def work() -> Answer:
            if interrupted:
                call.close()
                raise asyncio.CancelledError
            begun.extend(filter(None, [asyncio.current_task()]))
            return await call

        settled = threading.Event()

        def cancel() -> None:
            for task in begun:
                task.add_done_callback(lambda _: settled.set())
                task.cancel()
            if not begun:
                settled.set()

        try:
            with self._lock:
                if self._stopping:
                    raise futures.CancelledError
                answer = asyncio.run_coroutine_threadsafe(work(), self._loop)
            return answer.result()
        except futures.CancelledError:
            if not begun:
                call.close()
            if not self._stopping:
                raise
            raise LoopStopped("the loop was stopped") from None
        except BaseException:
            if answer is not None and answer.done():
                raise
            # An interrupt may come before there is a future to cancel.
            interrupted = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its tasks with it
                self._loop.call_soon_threadsafe(cancel)
                settled.wait(STOP_SECONDS)
            raise

    def stop(self, last: Coroutine[Any, Any, None]) -> None:
        """Run the ``last`` call and end the thread, which may be the one that calls this."""
        if not self.alive:
            last.close()
            return

        async def end() -> None:
            try:
                await last
            finally:
                self._stopped.set()

        with self._lock:
            self._stopping = True
            asyncio.run_coroutine_threadsafe(end(), self._loop)
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_SECONDS)

    def _work(self) -> None:
        # From Python 3.12 on a program that ends starts no thread any more, and the loop would wait
        # for its executor in one. There is nothing to wait for: those threads have ended before.
        with contextlib.suppress(RuntimeError):
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._running.set()
        await self._stopped.wait()
