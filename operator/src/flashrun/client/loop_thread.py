"""An event loop in a thread of its own, for calls that wait.

A notebook runs a loop already, in which nothing may wait for another one. And credentials of
storage are renewed between two calls, which needs a loop that goes on.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

Answer = TypeVar("Answer")
STOP_SECONDS: Final = 5.0
"""How long stopping waits for what is still running."""


class LoopThread:
    """A loop that runs until ``stop``; it does not keep the program from ending."""

    def __init__(self) -> None:
        self._running = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="flashrun-client", daemon=True)
        self._thread.start()
        self._running.wait()

    @property
    def alive(self) -> bool:
        """Whether calls can be made; in a forked process there is no such thread."""
        return not self._stopping and self._thread.is_alive()

    def run(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        """Return what ``call`` returns; an interrupt, as by Ctrl-C, cancels it.

        Raises:
            RuntimeError: the loop was stopped.
        """
        if not self.alive:
            call.close()
            raise RuntimeError("the loop was stopped")
        begun: list[asyncio.Task[Any]] = []
        interrupted = False

        async def work() -> Answer:
            if interrupted:
                call.close()
                raise asyncio.CancelledError
            begun.extend(filter(None, [asyncio.current_task()]))
            return await call

        def cancel() -> None:
            for task in begun:
                task.cancel()

        try:
            return asyncio.run_coroutine_threadsafe(work(), self._loop).result()
        except BaseException:
            # An interrupt may come before there is a future to cancel.
            interrupted = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its tasks with it
                self._loop.call_soon_threadsafe(cancel)
            raise

    def stop(self, last: Coroutine[Any, Any, None]) -> None:
        """Run the ``last`` call and end the thread, which may be the one that calls this."""
        if not self.alive:
            last.close()
            return
        self._stopping = True

        async def end() -> None:
            try:
                await last
            finally:
                self._stopped.set()

        asyncio.run_coroutine_threadsafe(end(), self._loop)
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_SECONDS)

    def _work(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._running.set()
        await self._stopped.wait()
