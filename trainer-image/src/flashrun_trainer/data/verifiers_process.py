"""The trainer's side of the process in which an environment of ``verifiers`` lives.

Calls may come from several threads. Each has a time limit. All calls of a process share its event
loop, so time during which the code of another call blocks the loop does not count; code that blocks
it for the whole limit is interrupted by a signal. A process that does not even react to that is
killed, its episodes have failed, and the next call starts another one.
"""

import json
import logging
import os
import select
import signal
import socket
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from flashrun.api.pod import SPEC_VARIABLE
from flashrun.api.verifiers_packages import VERSION, VerifiersEntry
from flashrun_trainer.data import verifiers_program
from flashrun_trainer.data.calls import CallTimeoutError

log = logging.getLogger(__name__)

_PROGRAM: Final = str(Path(verifiers_program.__file__))
_WAKE_SECONDS: Final = 0.1
_LONGEST_TICK: Final = 1.0
"""Without a tick, no more than this counts as time in which the event loop was free."""
_INTERRUPT_SECONDS: Final = 5.0
"""After a signal, the event loop must be free within this time."""
_PATH_VARIABLES: Final = ("PYTHONPATH", "PYTHONHOME")
"""They would show the trainer's packages to the other interpreter."""
_OWN_PREFIX: Final = SPEC_VARIABLE.partition("_")[0] + "_"
_LOAD_SECONDS: Final = float("inf")
"""Loading an environment may take as long as it does for any other."""
_TIMEOUT_SECONDS: Final = 600.0
"""The time limit of a call, where the environment does not set ``reward_timeout_seconds``."""


class VerifiersFailure(Exception):
    """The environment, or an episode of it, has failed; the traceback is in a note."""

    def __init__(self, sentence: str, trace: str = "", *, refused: bool = False) -> None:
        super().__init__(sentence)
        self.refused = refused
        """Whether the environment needs something that it does not get in training."""
        if trace:
            self.add_note(trace)


class VerifiersProcess:
    """The environment in ``folder`` with the rows of a split, loaded by another interpreter."""

    def __init__(
        self,
        python: Path,
        folder: Path,
        entry: VerifiersEntry,
        params: Mapping[str, Any],
        split: str,
    ) -> None:
        """Start the process and load the environment; raises ``VerifiersFailure``."""
        self._python = python
        self._request = {
            "folder": str(folder),
            "module": entry.module,
            "params": dict(params),
            "version": VERSION,
            "split": split,
        }
        self._lock = threading.Lock()
        self._episodes = count(1)
        self._child, self.description = self._start()
        """What the environment reports about itself, and its rows."""
        weakref.finalize(self, _Child.close, self._child)
        settings = self.description["settings"]
        self.seconds = float(settings.get("reward_timeout_seconds", _TIMEOUT_SECONDS))
        """How long a call may take."""
        self._child.blocked_limit = self.seconds

    def start_episode(self, row: int) -> tuple["VerifiersEpisode", Any]:
        """Start an episode of a row; return it, and its opening messages and tools.

        Raises:
            CallTimeoutError: it did not start in time.
            VerifiersFailure: it has failed.
        """
        episode = VerifiersEpisode(self._running(), next(self._episodes), self.seconds)
        return episode, episode.call("start", row=row)

    @property
    def process_id(self) -> int:
        """The number of the process."""
        return self._child.process_id

    def close(self) -> None:
        """End the process."""
        self._child.close()

    def _running(self) -> "_Child":
        """Return the process; start it again if it has ended."""
        with self._lock:
            if self._child.ended:
                log.warning("the process of the environment is started again")
                self._child, _ = self._start()
                weakref.finalize(self, _Child.close, self._child)
                self._child.blocked_limit = self.seconds
            return self._child

    def _start(self) -> tuple["_Child", dict[str, Any]]:
        child = _Child(self._python)
        try:
            return child, child.call("load", _LOAD_SECONDS, **self._request)
        except BaseException:
            child.close()
            raise


class VerifiersEpisode:
    """An episode in the process; it is forgotten there when this object is."""

    def __init__(self, child: "_Child", number: int, seconds: float) -> None:
        self._child, self._number, self._seconds = child, number, seconds

    def call(self, do: str, **arguments: Any) -> Any:
        """Make a call for this episode and return its result.

        Raises:
            CallTimeoutError: it did not return in time.
            VerifiersFailure: the episode has failed.
        """
        return self._child.call(do, self._seconds, episode=self._number, **arguments)

    def __del__(self) -> None:
        self._child.forgotten.append(self._number)


class _Child:
    """One process, and the thread that started it, reads its replies and watches it."""

    def __init__(self, python: Path) -> None:
        self.ended = False
        self._python = python
        self._ids = count(1)
        self._pending: dict[int, _PendingCall] = {}
        self._lock = threading.Lock()
        """Held where calls begin, and where the process ends."""
        self._sending = threading.Lock()
        self._free_seconds = 0.0
        """For how long the event loop was free, in all."""
        self._last_tick = time.monotonic()
        self._ticks = False
        self._interrupted = False
        self.blocked_limit = _LOAD_SECONDS
        """After so many seconds without a tick, what blocks the event loop is interrupted."""
        self.forgotten: deque[int] = deque()
        """Episodes that nobody needs any more; whatever thread forgets them must not wait."""
        self._own, self._others = socket.socketpair()
        self._started = threading.Event()
        self._error: OSError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        threading.Thread(target=self._live, name="verifiers", daemon=True).start()
        self._started.wait()
        if self._error is not None:
            raise VerifiersFailure(f"{python} cannot be started: {self._error}")

    @property
    def process_id(self) -> int:
        """The number of the process."""
        assert self._process is not None
        return self._process.pid

    def call(self, do: str, seconds: float, **arguments: Any) -> Any:
        """Make a request and wait for its reply, for ``seconds`` in which the event loop is free.

        Raises:
            CallTimeoutError: there is no reply in time.
            VerifiersFailure: the environment has failed.
        """
        identifier, call = next(self._ids), _PendingCall()
        with self._lock:
            if self.ended:
                raise VerifiersFailure(_ENDED)
            self._pending[identifier] = call
        try:
            self._send({"id": identifier, "do": do, **arguments})
            limit = self._free_seconds + seconds
            while not call.replied.wait(_WAKE_SECONDS):
                if self._free_seconds >= limit:
                    self.post({"do": "give_up", "given_up": identifier, **arguments})
                    raise _overdue(seconds)
        finally:
            self._pending.pop(identifier, None)
        reply = call.reply
        if reply.get("overdue"):
            raise _overdue(seconds)
        if "error" in reply:
            refused = bool(reply.get("refused"))
            raise VerifiersFailure(reply["error"], reply.get("trace", ""), refused=refused)
        return reply["result"]

    def post(self, message: dict[str, Any]) -> None:
        """Send a request whose reply nobody waits for."""
        if not self.ended:
            with suppress(OSError):
                self._send({"id": next(self._ids), **message})

    def close(self) -> None:
        """Close the connection, which ends the process."""
        with suppress(OSError):
            self._own.shutdown(socket.SHUT_RDWR)

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._sending, suppress(OSError):  # the thread that reads sees its end, too
            self._own.sendall(data)

    # --- the thread -----------------------------------------------------------------------------

    def _live(self) -> None:
        """Start the process and read from it to its end.

        Linux kills the process when this thread ends, so it must be this one that starts it.
        """
        try:
            self._process = subprocess.Popen(
                [
                    *(str(self._python), "-P", _PROGRAM),
                    *(str(self._others.fileno()), str(os.getpid())),
                ],
                env={
                    name: value
                    for name, value in os.environ.items()
                    if name not in _PATH_VARIABLES and not name.startswith(_OWN_PREFIX)
                },
                stdin=subprocess.DEVNULL,
                pass_fds=[self._others.fileno()],
            )
        except OSError as error:
            self._error = error
            return
        finally:
            self._others.close()
            self._started.set()
        for line in self._lines():
            self._take(json.loads(line))
        with self._lock:
            self.ended = True
            pending = list(self._pending.values())
        code = self._end()
        for call in pending:
            call.end({"error": f"{_ENDED}, with {_ending(code)}"})

    def _lines(self) -> Iterator[bytes]:
        """Yield what the process sends, and watch it meanwhile; the end is the process's end."""
        buffer = b""
        poll = select.poll()
        poll.register(self._own, select.POLLIN)
        while True:
            readable = poll.poll(1000 * _WAKE_SECONDS)
            self._watch()
            while self.forgotten:
                self.post({"do": "end", "episode": self.forgotten.popleft()})
            if not readable:
                continue
            try:
                received = self._own.recv(1 << 16)
            except OSError:
                return
            if not received:
                return
            *lines, buffer = (buffer + received).split(b"\n")
            yield from lines

    def _take(self, message: dict[str, Any]) -> None:
        if "tick" in message:
            now = time.monotonic()
            self._free_seconds += min(now - self._last_tick, _LONGEST_TICK) if self._ticks else 0.0
            self._last_tick, self._ticks, self._interrupted = now, True, False
        elif (call := self._pending.get(message["id"])) is not None:
            call.end(message)

    def _watch(self) -> None:
        """Interrupt what blocks the event loop, and kill a process that does not react."""
        if not self._ticks or self._process is None:
            return
        blocked = time.monotonic() - self._last_tick
        if blocked > self.blocked_limit and not self._interrupted:
            log.warning("code of the environment blocks its event loop: it is interrupted")
            self._interrupted = True
            self._process.send_signal(signal.SIGVTALRM)
        elif blocked > self.blocked_limit + _INTERRUPT_SECONDS:
            log.warning("code of the environment cannot be interrupted: its process is killed")
            self._process.kill()

    def _end(self) -> int:
        """Wait for the process, and kill it if it does not end; return its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(_INTERRUPT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._own.close()


class _PendingCall:
    """A call that waits for its reply."""

    def __init__(self) -> None:
        self.replied = threading.Event()
        self.reply: dict[str, Any] = {}

    def end(self, reply: dict[str, Any]) -> None:
        """Give the call its reply."""
        self.reply = reply
        self.replied.set()


_ENDED: Final = "the process of the environment has ended"


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _overdue(seconds: float) -> CallTimeoutError:
    return CallTimeoutError(
        f"the environment's code did not return within reward_timeout_seconds = {seconds:g}"
    )
