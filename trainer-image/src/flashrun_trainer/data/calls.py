"""Calls of the environment's code: each has a time limit, and one that hangs is left behind.

Python cannot end a thread from outside. A call that takes too long is given up: its result is a
``CallTimeoutError``, and an exception is raised in its thread, which ends it as soon as it runs
Python code again. Until then the thread is left behind. A new thread takes its place, and neither
later calls nor the end of the process wait for it.

With a single thread, calls run on the caller's thread, because some environments need that. A
signal interrupts such a call, also where it sleeps or waits for a connection.
"""

import ctypes
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from types import FrameType
from typing import Any, Final, Generic, TypeVar

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.pod.trainer_errors import InterruptedBeforeTraining, TrainerError

Item = TypeVar("Item")
Result = TypeVar("Result")

_HANGING_ROUNDS: Final = 3
"""After so many time-outs per thread in a row, the rest of the calls is not made."""
_SIGNAL: Final = signal.SIGVTALRM
"""Interrupts a call on the main thread; environments use SIGALRM for limits of their own."""
_REPEAT_SECONDS: Final = 1.0
"""A call that swallows the interruption is interrupted again after this time."""
_CHECK_SECONDS: Final = 1.0
"""So often it is checked whether a thread has died."""
_MOST_LEFT_BEHIND: Final = 256
"""Threads with calls that hang; a pod may have about a thousand threads."""


def check_left_behind(threads: Sequence[int]) -> None:
    """Check how many threads still run calls that hang, on every rank.

    Raises:
        TrainerError: they are too many; only a new process is rid of them.
    """
    if max(threads) > _MOST_LEFT_BEHIND:
        raise TrainerError(
            Exit.TEMPORARY,
            Reason.JUDGE_UNAVAILABLE,
            f"{max(threads)} calls of the environment hang in one process",
            "the run is retried from its last step; set a time limit for what the environment "
            "waits for",
        )


class CallTimeoutError(Exception):
    """A call did not return in time."""

    def __init__(self, sentence: str, stack: str = "") -> None:
        super().__init__(sentence)
        self.stack = stack
        """Where the call was when it was given up, as a traceback."""


class WorkerDiedError(Exception):
    """The thread of a call has ended in the middle of it."""


class _CallInterrupted(BaseException):
    """Raised in a call that is given up; an ``except Exception`` does not catch it."""

    def __init__(self, stack: str = "") -> None:
        super().__init__()
        self.stack = stack


class CallRunner:
    """Makes calls on up to ``threads`` threads, each with a limit of ``seconds``."""

    def __init__(self, threads: int, seconds: float) -> None:
        self._threads = threads
        self._seconds = seconds
        self._tasks: SimpleQueue[_Call[Any, Any] | None] = SimpleQueue()
        weakref.finalize(self, self._tasks.put, None)
        # Threads enter the lock and not the condition, whose methods are written in Python: an
        # exception that arrives in a thread there would leave the lock locked for ever.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._workers: set[threading.Thread] = set()
        self._left_behind: list[threading.Thread] = []
        self._timeouts_in_a_row = 0
        self._watchdog = _Watchdog()

    @property
    def left_behind(self) -> int:
        """How many threads still run calls that were given up."""
        self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
        return len(self._left_behind)

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> list[Result | BaseException]:
        """Call ``function`` on every item.

        Returns what each call has returned or raised, in order; a ``CallTimeoutError`` for one that
        did not return in time. When calls only hang, the rest is not made and timed out, too.
        """
        self._timeouts_in_a_row = 0
        if self._threads == 1 and threading.current_thread() is threading.main_thread():
            return [self._call_here(function, item) for item in items]
        calls = [_Call(function, item) for item in items]
        with self._changed:
            self._workers = {worker for worker in self._workers if worker.is_alive()}
            for _ in range(min(self._threads, len(calls)) - len(self._workers)):
                self._add_worker()
        for call in calls:
            self._tasks.put(call)
        try:
            self._wait_for(calls)
        finally:
            # An interruption of the caller may have ended the wait: nobody needs the rest.
            for call in calls:
                call.ended = True
        return [call.result for call in calls]

    # --- on the caller's thread -----------------------------------------------------------------

    def _call_here(self, function: Callable[[Item], Result], item: Item) -> Result | BaseException:
        if self._only_hangs():
            return self._not_made()
        result: Result | BaseException
        try:
            try:
                self._watchdog.start(self._seconds)
                result = function(item)
            finally:
                self._watchdog.stop()
        except _CallInterrupted as interruption:
            self._watchdog.stop()  # the signal may have arrived before the line above
            self._timeouts_in_a_row += 1
            return self._timeout(interruption.stack)
        except InterruptedBeforeTraining:
            raise
        except BaseException as error:  # some run the code that a model writes: it may call exit()
            result = error
        self._count(result)
        return result

    # --- on other threads -----------------------------------------------------------------------

    def _wait_for(self, calls: "Sequence[_Call[Any, Any]]") -> None:
        with self._changed:
            while pending := [call for call in calls if not call.ended]:
                now = time.monotonic()
                overdue = [call for call in pending if call.end_by(self._seconds) <= now]
                for call in overdue:
                    self._give_up(call)
                if self._only_hangs():
                    for call in pending:
                        if call.began is None:
                            call.end(self._not_made())
                self._replace_dead_workers(pending)
                if not overdue:
                    next_end = min(call.end_by(self._seconds) for call in pending)
                    self._changed.wait(min(next_end - now, _CHECK_SECONDS))

    def _replace_dead_workers(self, pending: "Sequence[_Call[Any, Any]]") -> None:
        """Make up for threads that have died; needs the lock.

        A call that has begun on such a thread has failed. One that the thread had only taken is
        made by another thread, and because nobody knows which one it is, all that have not begun
        are queued again.
        """
        dead = {worker for worker in self._workers if not worker.is_alive()}
        for call in pending:
            if call.thread in dead:
                call.end(WorkerDiedError("the thread of this call has ended"))
            elif dead and not call.ended:
                self._tasks.put(call)
        self._workers -= dead
        for _ in dead:
            self._add_worker()

    def _add_worker(self) -> None:
        worker = threading.Thread(
            target=_work, args=(weakref.ref(self), self._tasks), name="environment", daemon=True
        )
        self._workers.add(worker)
        worker.start()

    def make_call(self, call: "_Call[Any, Any]") -> bool:
        """Make a call on this thread; return False when it was given up, and the thread ends."""
        with self._lock:
            if call.ended or call.began is not None:
                return True
            call.thread, call.began = threading.current_thread(), time.monotonic()
            self._changed.notify()
        try:
            result = call.function(call.item)
        except BaseException as error:
            result = error
        with self._lock:
            if call.thread not in self._workers:
                return False
            self._count(result)
            call.end(result)
            self._changed.notify()
        return True

    def _give_up(self, call: "_Call[Any, Any]") -> None:
        """End a call without its result; needs the lock."""
        thread = call.thread
        assert thread is not None
        assert thread.ident is not None
        frame = sys._current_frames().get(thread.ident)
        call.end(self._timeout("".join(traceback.format_stack(frame)) if frame else ""))
        self._timeouts_in_a_row += 1
        self._workers.discard(thread)
        self._left_behind.append(thread)
        self._add_worker()
        # https://docs.python.org/3/c-api/threads.html: raised when the thread runs Python code.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(_CallInterrupted)
        )

    # --- both -----------------------------------------------------------------------------------

    def _count(self, result: Any) -> None:
        """Count a call that has ended; it may have kept the time limit itself."""
        is_timeout = isinstance(result, CallTimeoutError)
        self._timeouts_in_a_row = self._timeouts_in_a_row + 1 if is_timeout else 0

    def _only_hangs(self) -> bool:
        return self._timeouts_in_a_row >= _HANGING_ROUNDS * self._threads

    def _timeout(self, stack: str) -> CallTimeoutError:
        limit = f"reward_timeout_seconds = {self._seconds:g}"
        return CallTimeoutError(f"the environment's code did not return within {limit}", stack)

    def _not_made(self) -> CallTimeoutError:
        return CallTimeoutError(
            f"the environment's code was not called, because {self._timeouts_in_a_row} calls in a "
            f"row did not return within reward_timeout_seconds = {self._seconds:g}"
        )


class _Call(Generic[Item, Result]):
    """One call, and how far it is."""

    def __init__(self, function: Callable[[Item], Result], item: Item) -> None:
        self.function, self.item = function, item
        self.began: float | None = None
        self.thread: threading.Thread | None = None
        self.ended = False
        self.result: Result | BaseException = CallTimeoutError("the call was not made")

    def end(self, result: Result | BaseException) -> None:
        """Set what it has returned or raised."""
        self.result, self.ended = result, True

    def end_by(self, seconds: float) -> float:
        """Return when the call is given up; infinity while it has not begun."""
        return float("inf") if self.began is None else self.began + seconds


def _work(runner: "weakref.ref[CallRunner]", tasks: "SimpleQueue[_Call[Any, Any] | None]") -> None:
    """Make calls until one is given up, or the runner is gone."""
    try:
        while (call := tasks.get()) is not None and (owner := runner()) is not None:
            if not owner.make_call(call):
                return
            del owner, call
        tasks.put(None)  # for the next thread
    except _CallInterrupted:
        pass  # raised after the call had returned


class _Watchdog:
    """Interrupts what the main thread does when that takes too long."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._wakes_at = float("inf")
        self._started = False

    def start(self, seconds: float) -> None:
        """Raise ``_CallInterrupted`` in the main thread after ``seconds``."""
        signal.signal(_SIGNAL, self._interrupt)
        with self._changed:
            self._deadline = time.monotonic() + seconds
            if not self._started:
                self._started = True
                threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
            elif self._deadline < self._wakes_at:  # mostly it wakes earlier, for an earlier call
                self._changed.notify()

    def stop(self) -> None:
        """Let the main thread work as long as it likes."""
        self._deadline = None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        # A signal for an earlier call may arrive late.
        if self._deadline is not None and self._deadline <= time.monotonic():
            raise _CallInterrupted("".join(traceback.format_stack(frame)))

    def _watch(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        with self._changed:
            while (deadline := self._deadline) is not None:
                now = time.monotonic()
                if deadline <= now:
                    signal.pthread_kill(main, _SIGNAL)
                    deadline = now + _REPEAT_SECONDS
                self._wakes_at = deadline
                self._changed.wait(deadline - now)
            self._started = False
