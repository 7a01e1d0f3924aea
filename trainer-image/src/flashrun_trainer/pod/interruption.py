"""SIGTERM: before training it ends the process at once, during training it wakes a thread.

A Python handler of a signal runs on the main thread, between two of its instructions. In training
that may take long: the main thread waits for other ranks, for a judge, or computes a gradient.
Python's wake-up descriptor is written at once, by the handler in C, and a thread reads it.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from flashrun_trainer.pod.trainer_errors import InterruptedBeforeTraining


class Interruption:
    """Whether the pod was asked to stop, and what happens then."""

    def __init__(self) -> None:
        self.requested = False
        self._ends_process = True
        self._writer: int | None = None
        self._forking = threading.local()

    def install_handler(self) -> None:
        """Handle SIGTERM from now on, in this process and not in its forks."""
        signal.signal(signal.SIGTERM, self._on_signal)
        os.register_at_fork(
            before=self._block, after_in_parent=self._unblock, after_in_child=self._leave_to_default
        )

    def training_begins(self) -> None:
        """Let SIGTERM only set ``requested`` from now on.

        Raises:
            InterruptedBeforeTraining: the pod was asked to stop before.
        """
        self._ends_process = False
        if self.requested:
            raise InterruptedBeforeTraining

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call ``stop`` on another thread when SIGTERM arrives inside the ``with`` block.

        Use it on the main thread.

        Raises:
            InterruptedBeforeTraining: the pod was asked to stop before.
        """
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        arguments = (reader, stop)
        threading.Thread(target=self._wait, args=arguments, name="stop", daemon=True).start()
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._writer = writer
        try:
            self.training_begins()
            yield
        finally:
            self._writer = None
            signal.set_wakeup_fd(before)
            os.close(writer)  # which ends the thread

    def _wait(self, reader: int, stop: Callable[[], None]) -> None:
        """Wait for SIGTERM; each signal that the process handles is one byte, its number."""
        with open(reader, "rb", buffering=0) as numbers:
            while received := numbers.read(64):
                if signal.SIGTERM in received:
                    self.requested = True
                    stop()
                    return

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        already, self.requested = self.requested, True
        if self._ends_process and not already:
            raise InterruptedBeforeTraining
        if self._writer is not None:
            # The environment's code may have replaced the wake-up descriptor.
            with suppress(OSError):
                os.write(self._writer, bytes([signal.SIGTERM]))

    def _block(self) -> None:
        """Keep a SIGTERM for a fork back until the fork has the default handler."""
        self._forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def _unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._forking.mask)

    def _leave_to_default(self) -> None:
        """Let SIGTERM end a fork, such as a scorer that is terminated after its time limit."""
        if signal.getsignal(signal.SIGTERM) == self._on_signal:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
        self._unblock()
