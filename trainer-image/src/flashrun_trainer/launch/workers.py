"""The processes of one pod: started, listened to, ended; and which of their ends is the cause.

Of several processes that end, most end because another one did. The first that fails says how the
pod ends; those that only lost touch with it give the cause a few seconds to be heard of.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Final

from flashrun.api import pod as pod_contract
from flashrun.api.exits import Exit, Termination, parse_termination
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedRun
from flashrun_trainer.launch.rendezvous import Ended, Link, Start
from flashrun_trainer.pod.distributed import RANK, threads
from flashrun_trainer.pod.interruption import Interruption
from flashrun_trainer.pod.mounts import Pod
from flashrun_trainer.pod.trainer_errors import (
    InterruptedBeforeTraining,
    Redactor,
    TrainerError,
    explain,
    shortened,
)
from flashrun_trainer.records import termination

log = logging.getLogger(__name__)

RANK_COMMAND: Final = (sys.executable, "-m", "flashrun_trainer", pod_contract.RANK_COMMAND)
_CONSEQUENCES: Final = (Exit.NCCL, 128 + signal.SIGABRT)
"""What a process ends with whose peer is gone: by an error, or by the watchdog of NCCL."""
_SECOND_THOUGHTS: Final = 5.0
"""Time for the cause to be heard of, when a consequence was seen first."""
_LAST_WORDS_SECONDS: Final = 15.0
"""Time from SIGTERM to SIGKILL for a process that does not begin to end."""
_TRACEBACK_LINES: Final = 100
_LAST_WORDS: Final = 64 * 1024
"""Characters of them that another pod is told; its patience for a message is limited, too."""
_SIGNALLED: Final = 128


@dataclass(frozen=True)
class Gone:
    """A process of this pod has ended."""

    local: int
    code: int


@dataclass(frozen=True)
class Told:
    """Another pod has said how it ended."""

    index: int
    ended: Ended


@dataclass(frozen=True)
class Missed:
    """Another pod is gone without a word; ``silent`` when its node does not even answer."""

    index: int
    silent: bool


Event = Gone | Told | Missed


@dataclass
class Team:
    """The processes of one pod, and what is known of the other pods."""

    pod: Pod
    spec: ResolvedRun
    start: Start
    links: list[Link]
    interruption: Interruption
    redact: Redactor
    _events: SimpleQueue[Event] = field(default_factory=SimpleQueue)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _copies: dict[int, "Copy"] = field(default_factory=dict)
    _done_pods: set[int] = field(default_factory=set)
    """Other pods whose processes have all done their part."""

    def work(self) -> Ended:
        """Start the processes, and return how the attempt ended once none of them is left."""
        with self._sigterm_handed_on(), self._all_gone_at_the_end():
            for local in range(self.spec.scale.gpus):
                self._processes.append(self._started(local))
            if self.interruption.requested:
                self._signal_all(signal.SIGTERM)
            for link in self.links:
                threading.Thread(target=self._listen, args=(link,), daemon=True).start()
            ended = self._outcome()
            for link in self.links:
                link.send(ended)
            self._end_the_others()
        for link in self.links:
            link.close()
        return ended

    # --- starting -------------------------------------------------------------------------------

    def _started(self, local: int) -> subprocess.Popen[bytes]:
        number = self.pod.index * self.spec.scale.gpus + local
        process = subprocess.Popen(
            RANK_COMMAND,
            env=os.environ | self._environment(number, local),
            stdout=None if number == 0 else subprocess.PIPE,
            stderr=None if number == 0 else subprocess.STDOUT,
            # A group of its own, so that what it starts can be ended with it.
            start_new_session=True,
        )
        if process.stdout is not None:
            self._copies[local] = Copy(f"[rank {number}] ", process.stdout)
        threading.Thread(target=self._await, args=(local, process), daemon=True).start()
        return process

    def _environment(self, number: int, local: int) -> dict[str, str]:
        scale = self.spec.scale
        return {
            RANK: str(number),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(scale.world_size),
            "LOCAL_WORLD_SIZE": str(scale.gpus),
            "MASTER_ADDR": "127.0.0.1" if self.pod.index == 0 else self.pod.leader,
            "MASTER_PORT": str(self.start.port),
            # Debian's PyTorch is built without libuv, which so few processes do not need.
            "USE_LIBUV": "0",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or threads(scale.gpus),
            pod_contract.TERMINATION_VARIABLE: str(self._termination(local)),
            pod_contract.ATTEMPT_VARIABLE: str(self.start.attempt),
        }

    def _termination(self, local: int) -> Path:
        return self.pod.work / f"termination-{local}"

    # --- listening, on threads ------------------------------------------------------------------

    def _await(self, local: int, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        self._events.put(Gone(local, code if code >= 0 else _SIGNALLED - code))

    def _listen(self, link: Link) -> None:
        while True:
            try:
                self._events.put(Told(link.index, link.receive(Ended)))
            except EOFError:
                self._events.put(Missed(link.index, silent=False))
                return
            except OSError:
                self._events.put(Missed(link.index, silent=True))
                return

    # --- deciding -------------------------------------------------------------------------------

    def _outcome(self) -> Ended:
        """Wait for the first failure, or for success, and return it."""
        ended = None
        while ended is None:
            ended = self._judged(self._events.get())
        deadline = time.monotonic() + _SECOND_THOUGHTS
        while ended.code in _CONSEQUENCES and (left := deadline - time.monotonic()) > 0:
            try:
                cause = self._judged(self._events.get(timeout=left))
            except Empty:
                break
            if cause is not None and cause.code not in (*_CONSEQUENCES, Exit.DONE):
                ended = cause
        return ended

    def _judged(self, event: Event) -> Ended | None:
        """Return how the attempt ends because of ``event``; None when it goes on."""
        match event:
            case Gone(local, code):
                return self._judged_process(local, code)
            case Told(index, ended):
                return self._judged_pod(index, ended)
            case Missed(index, silent):
                return None if index in self._done_pods else _cut_off(index, silent)

    def _judged_process(self, local: int, code: int) -> Ended | None:
        if code != Exit.DONE:
            return self._failed(local, code)
        if self.pod.index == 0:
            # The others have nothing to do after training; the first one has the last word.
            return Ended(code=Exit.DONE, termination=self._message(local)) if local == 0 else None
        if all(process.poll() == Exit.DONE for process in self._processes):
            self.links[0].send(Ended(code=Exit.DONE))
        return None

    def _judged_pod(self, index: int, ended: Ended) -> Ended | None:
        if self.pod.index == 0 and ended.code == Exit.DONE:
            self._done_pods.add(index)
            return None
        if ended.code in (Exit.DONE, Exit.INTERRUPTED_SAVED):
            return ended.replace(log="")
        for line in ended.log.splitlines():
            log.error("[pod %d] %s", index, self.redact(line))
        return _because_of(index, ended)

    def _failed(self, local: int, code: int) -> Ended:
        message = self._message(local) or self._without_a_word(local, code)
        last = self._copies[local].last() if local in self._copies else ""
        return Ended(code=code, termination=message, log=self.redact(last)[-_LAST_WORDS:])

    def _message(self, local: int) -> Termination | None:
        path = self._termination(local)
        return parse_termination(path.read_text()) if path.exists() else None

    def _begins_to_end(self, local: int) -> bool:
        return self._termination(local).exists()

    def _without_a_word(self, local: int, code: int) -> Termination:
        asked_to = (Exit.TERMINATED, Exit.INTERRUPTED_UNSAVED)
        if code in asked_to and self.interruption.requested:
            return termination.termination(explain(InterruptedBeforeTraining()), self.redact)
        number = self.pod.index * self.spec.scale.gpus + local
        killed = code == _SIGNALLED + signal.SIGKILL
        how = (
            f"was killed by {_signal_name(code - _SIGNALLED)}"
            if code > _SIGNALLED
            else f"ended with exit code {code} without saying why"
        )
        end = TrainerError(
            code,
            Reason.PROCESS_KILLED if code > _SIGNALLED else Reason.PROCESS_FAILED,
            f"process {number} of {self.spec.scale.world_size} {how}",
            "most often the pod ran out of memory: lower train.batch_size or train.max_length"
            if killed
            else "see flash log",
        )
        return termination.termination(end, self.redact, attempt=self.start.attempt)

    # --- ending ---------------------------------------------------------------------------------

    @contextmanager
    def _sigterm_handed_on(self) -> Iterator[None]:
        """From now on SIGTERM is the processes' affair."""
        self.interruption.training_begins()

        def hand_on(*_: object) -> None:
            self.interruption.requested = True
            self._signal_all(signal.SIGTERM)

        before = signal.signal(signal.SIGTERM, hand_on)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def _all_gone_at_the_end(self) -> Iterator[None]:
        try:
            yield
        finally:
            for process in self._processes:
                _kill_group(process)

    def _signal_all(self, number: int) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def _end_the_others(self) -> None:
        """Ask what still runs to end, and wait for it: as long as it may upload, if it does."""
        self._signal_all(signal.SIGTERM)
        begun = time.monotonic()
        for local, process in enumerate(self._processes):
            if not _ended_by(process, begun + _LAST_WORDS_SECONDS) and self._begins_to_end(local):
                _ended_by(process, begun + self.spec.upload_timeout_seconds + _LAST_WORDS_SECONDS)
            if process.poll() is None:
                log.warning("process %d does not end by itself", local)
                _kill_group(process)


class Copy:
    """Passes on what a process says, with a mark in front of each line."""

    def __init__(self, mark: str, stream: IO[bytes]) -> None:
        self._mark = mark
        self._stream = stream
        self._last: deque[str] = deque(maxlen=_TRACEBACK_LINES)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def last(self) -> str:
        """Return the last lines of a process that has ended."""
        # What it has started may hold its output open: that is not waited for.
        self._thread.join(1.0)
        return "\n".join(self._last)

    def _work(self) -> None:
        with self._stream:
            for line in self._stream:
                text = line.decode("utf-8", "replace").rstrip("\n")
                self._last.append(text)
                os.write(1, f"{self._mark}{text}\n".encode())


def _ended_by(process: subprocess.Popen[bytes], deadline: float) -> bool:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process, and whatever it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _cut_off(index: int, silent: bool) -> Ended:
    """Return the end of a pod that has lost another one.

    The other pod's own exit code says whether that counts as a failure; only when its node does not
    answer, and nobody else may ever say so, it counts here.
    """
    if silent:
        code, what = Exit.NCCL, "does not answer any more"
    else:
        code, what = Exit.INTERRUPTED_UNSAVED, "has gone away"
    message = f"pod {index} of this attempt {what}; the run goes on from its last checkpoint"
    return Ended(code=code, termination=Termination(reason=Reason.PEER_LOST, message=message))


def _because_of(index: int, ended: Ended) -> Ended:
    """Return the end of a pod that ends because another one has failed.

    It is that pod's failure, counted and explained there: once, and for its node alone.
    """
    said = ended.termination
    message = f"pod {index} of this attempt ended with code {ended.code}"
    if said is not None:
        message = f"{message}: {said.message}"
    return Ended(
        code=Exit.INTERRUPTED_UNSAVED,
        termination=Termination(
            reason=Reason.PEER_FAILED,
            message=shortened(message),
            hint=said.hint if said is not None else "",
        ),
    )
