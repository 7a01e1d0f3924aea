"""A gate between two threads: one changes the weights, step by step, the other one may stop it.

A step changes weights and optimizer only in its last part. Whoever stops the steps there has the
last whole step, however long the next one computes, samples or waits.
"""

import threading


class StepGate:
    """Lets either the training thread change the weights, or another thread keep them."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._changing = False
        self._stopped = False
        self._closed = False

    def begin_change(self) -> None:
        """Begin to change the weights; never returns after ``stop``."""
        with self._condition:
            self._wait_while_stopped()
            self._changing = True

    def end_change(self) -> None:
        """End what ``begin_change`` has begun; the step is whole."""
        with self._condition:
            self._changing = False
            self._condition.notify_all()

    def stop(self) -> bool:
        """Wait until the weights are not being changed, and let nobody change them any more.

        Returns False when the training thread has closed the gate before: it ends by itself.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._closed or not self._changing)
            self._stopped = not self._closed
            return self._stopped

    def close(self) -> None:
        """End training on the training thread; never returns after ``stop``."""
        with self._condition:
            self._wait_while_stopped()
            self._closed = True
            self._condition.notify_all()

    def _wait_while_stopped(self) -> None:
        self._condition.wait_for(lambda: not self._stopped)
