"""The worker processes of one pod: start them, watch them, end them, and find the first failure.

When several processes end, most of them end because another one did. The first process that fails
decides how the pod ends. An exit code that only says that other processes were lost (NCCL) is a
consequence: the pod then waits a few seconds for the cause.

A pod that is asked to stop asks rank 0, which alone saves: its own process, or the one in the
leading pod. The other processes only end when rank 0 has ended.
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
from flashrun_trainer.launch.rendezvous import (
    EndMessage,
    PeerConnection,
    StartMessage,
    StopMessage,
)
from flashrun_trainer.pod import main_memory
from flashrun_trainer.pod.distributed import RANK, threads_per_process
from flashrun_trainer.pod.interruption import Interruption
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.redaction import Redactor
from flashrun_trainer.pod.trainer_errors import (
    InterruptedBeforeTraining,
    TrainerError,
    classify,
    shorten,
)
from flashrun_trainer.records import termination

log = logging.getLogger(__name__)

WORKER_COMMAND: Final = (sys.executable, "-m", "flashrun_trainer", pod_contract.RANK_COMMAND)
_SIGNALLED: Final = 128
"""Added to a signal's number, this is the exit code of a process that the signal has ended."""
_CONSEQUENT_CODES: Final = (Exit.NCCL, _SIGNALLED + signal.SIGABRT)
"""Exit codes of a process that has lost another one: an error, or an abort by NCCL's watchdog."""
_CAUSE_GRACE_SECONDS: Final = 5.0
"""How long to wait for the cause after a consequence was seen first."""
_STOP_GRACE_SECONDS: Final = 15.0
"""Time from SIGTERM to SIGKILL for a process that does not start to end."""
_LOG_TAIL_LINES: Final = 100
"""Lines of a failed process that are kept: a traceback."""
_LOG_TAIL_CHARACTERS: Final = 64 * 1024
"""Characters of them in an EndMessage, whose length is limited."""


@dataclass(frozen=True)
class ProcessEnded:
    """A process of this pod has ended."""

    local_rank: int
    code: int


@dataclass(frozen=True)
class PeerEnded:
    """Another pod has sent how it ended."""

    index: int
    end: EndMessage


@dataclass(frozen=True)
class StopRequested:
    """This pod or another one was asked to stop."""


@dataclass(frozen=True)
class StopTimedOut:
    """Rank 0 was asked to stop a while ago."""


@dataclass(frozen=True)
class PeerLost:
    """The connection to another pod is lost."""

    index: int
    silent: bool
    """Whether its node does not answer, instead of closing the connection."""


WorkerEvent = ProcessEnded | PeerEnded | PeerLost | StopRequested | StopTimedOut


@dataclass
class WorkerGroup:
    """The worker processes of one pod, and the connections to the other pods."""

    pod: PodMounts
    spec: ResolvedRun
    start: StartMessage
    peers: list[PeerConnection]
    interruption: Interruption
    redact: Redactor
    _events: SimpleQueue[WorkerEvent] = field(default_factory=SimpleQueue)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _outputs: dict[int, "OutputForwarder"] = field(default_factory=dict)
    _done_peers: set[int] = field(default_factory=set)
    """Other pods whose processes have all succeeded."""
    _killed_before: int = field(default_factory=main_memory.killed_processes)
    """Processes of the container that the kernel had killed before."""
    _asked_to_stop: bool = False
    """Whether rank 0 was asked to stop."""

    def run(self) -> EndMessage:
        """Run the processes, and return how the attempt ended when all of them have ended."""
        with self._forward_sigterm(), self._kill_at_the_end():
            for local_rank in range(self.spec.scale.gpus):
                self._processes.append(self._start_process(local_rank))
            if self.interruption.requested:
                self._events.put(StopRequested())
            for peer in self.peers:
                threading.Thread(target=self._watch_peer, args=(peer,), daemon=True).start()
            end = self._wait_for_end()
            for peer in self.peers:
                peer.send(end)
            self._stop_processes()
        for peer in self.peers:
            peer.close()
        return end

    # --- starting -------------------------------------------------------------------------------

    def _start_process(self, local_rank: int) -> subprocess.Popen[bytes]:
        rank = self.pod.index * self.spec.scale.gpus + local_rank
        process = subprocess.Popen(
            WORKER_COMMAND,
            env=os.environ | self._environment(rank, local_rank),
            stdout=None if rank == 0 else subprocess.PIPE,
            stderr=None if rank == 0 else subprocess.STDOUT,
            # In its own process group, so that its child processes can be killed with it.
            start_new_session=True,
        )
        if process.stdout is not None:
            self._outputs[local_rank] = OutputForwarder(f"[rank {rank}] ", process.stdout)
        arguments = (local_rank, process)
        threading.Thread(target=self._watch_process, args=arguments, daemon=True).start()
        return process

    def _environment(self, rank: int, local_rank: int) -> dict[str, str]:
        scale = self.spec.scale
        return {
            RANK: str(rank),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(scale.world_size),
            "LOCAL_WORLD_SIZE": str(scale.gpus),
            "MASTER_ADDR": "127.0.0.1" if self.pod.index == 0 else self.pod.leader,
            "MASTER_PORT": str(self.start.port),
            # Debian's PyTorch is built without libuv, which so few processes do not need.
            "USE_LIBUV": "0",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or threads_per_process(scale.gpus),
            pod_contract.TERMINATION_VARIABLE: str(self._termination_path(local_rank)),
            pod_contract.ATTEMPT_VARIABLE: str(self.start.attempt),
        }

    def _termination_path(self, local_rank: int) -> Path:
        return self.pod.work / f"termination-{local_rank}"

    # --- watching, on threads -------------------------------------------------------------------

    def _watch_process(self, local_rank: int, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        self._events.put(ProcessEnded(local_rank, code if code >= 0 else _SIGNALLED - code))

    def _watch_peer(self, peer: PeerConnection) -> None:
        while True:
            try:
                message = peer.receive(EndMessage, StopMessage)
                if isinstance(message, EndMessage):
                    self._events.put(PeerEnded(peer.index, message))
                else:
                    self._events.put(StopRequested())
            except EOFError:
                self._events.put(PeerLost(peer.index, silent=False))
                return
            except OSError:
                self._events.put(PeerLost(peer.index, silent=True))
                return

    # --- deciding -------------------------------------------------------------------------------

    def _wait_for_end(self) -> EndMessage:
        """Return the first failure, or success."""
        end = None
        while end is None:
            end = self._end_after(self._events.get())
        deadline = time.monotonic() + _CAUSE_GRACE_SECONDS
        while end.code in _CONSEQUENT_CODES and (left := deadline - time.monotonic()) > 0:
            try:
                cause = self._end_after(self._events.get(timeout=left))
            except Empty:
                break
            if cause is not None and cause.code not in (*_CONSEQUENT_CODES, Exit.DONE):
                end = cause
        return end

    def _end_after(self, event: WorkerEvent) -> EndMessage | None:
        """Return how the attempt ends because of ``event``; None when it continues."""
        match event:
            case ProcessEnded(local_rank, code):
                return self._end_after_process(local_rank, code)
            case PeerEnded(index, end):
                return self._end_after_peer(index, end)
            case PeerLost(index, silent):
                return None if index in self._done_peers else _end_by_lost_peer(index, silent)
            case StopRequested():
                self._stop_rank_0()
                return None
            case StopTimedOut():
                return None if self._has_started_to_end(0) else self._end_unsaved()

    def _stop_rank_0(self) -> None:
        """Ask rank 0 to save and to end, once; in another pod than the leading one by a message."""
        if self._asked_to_stop:
            return
        self._asked_to_stop = True
        if self.pod.index > 0:
            self.peers[0].send(StopMessage())
            return
        log.info("rank 0 is asked to stop")
        self._processes[0].send_signal(signal.SIGTERM)
        timer = threading.Timer(_STOP_GRACE_SECONDS, self._events.put, [StopTimedOut()])
        timer.daemon = True
        timer.start()

    def _end_unsaved(self) -> EndMessage:
        log.warning("rank 0 has not answered for %.0f s", _STOP_GRACE_SECONDS)
        failure = TrainerError(
            Exit.INTERRUPTED_UNSAVED,
            Reason.INTERRUPTED,
            "the pod was asked to stop, and the trainer did not answer",
            "the run restarts automatically, from its last checkpoint",
        )
        message = termination.make_termination(failure, self.redact, attempt=self.start.attempt)
        return EndMessage(code=failure.code, termination=message)

    def _end_after_process(self, local_rank: int, code: int) -> EndMessage | None:
        if code != Exit.DONE:
            return self._end_by_failed_process(local_rank, code)
        if self.pod.index == 0:
            # The other ranks have nothing to do after training; rank 0 still publishes the adapter.
            if local_rank == 0:
                return EndMessage(code=Exit.DONE, termination=self._read_termination(local_rank))
            return None
        if all(process.poll() == Exit.DONE for process in self._processes):
            self.peers[0].send(EndMessage(code=Exit.DONE))
        return None

    def _end_after_peer(self, index: int, end: EndMessage) -> EndMessage | None:
        if self.pod.index == 0 and end.code == Exit.DONE:
            self._done_peers.add(index)
            return None
        if end.code in (Exit.DONE, Exit.INTERRUPTED_SAVED):
            return end.replace(log="")
        for line in end.log.splitlines():
            log.error("[pod %d] %s", index, self.redact(line))
        return _end_by_failed_peer(index, end)

    def _end_by_failed_process(self, local_rank: int, code: int) -> EndMessage:
        message = self._read_termination(local_rank) or self._unexplained_exit(local_rank, code)
        if message.reason is Reason.HOST_OUT_OF_MEMORY:
            code = Exit.HOST_OUT_OF_MEMORY
        tail = self._outputs[local_rank].tail() if local_rank in self._outputs else ""
        return EndMessage(
            code=code, termination=message, log=self.redact(tail)[-_LOG_TAIL_CHARACTERS:]
        )

    def _read_termination(self, local_rank: int) -> Termination | None:
        path = self._termination_path(local_rank)
        return parse_termination(path.read_text()) if path.exists() else None

    def _has_started_to_end(self, local_rank: int) -> bool:
        return self._termination_path(local_rank).exists()

    def _unexplained_exit(self, local_rank: int, code: int) -> Termination:
        """Return the termination message of a process that has left none."""
        asked_to_stop = (Exit.TERMINATED, Exit.INTERRUPTED_UNSAVED)
        if code in asked_to_stop and self.interruption.requested:
            failure = classify(InterruptedBeforeTraining())
            return termination.make_termination(failure, self.redact)
        rank = self.pod.index * self.spec.scale.gpus + local_rank
        is_killed = code == _SIGNALLED + signal.SIGKILL
        how = (
            f"was killed by {_signal_name(code - _SIGNALLED)}"
            if code > _SIGNALLED
            else f"ended with exit code {code} and without a message"
        )
        if is_killed and main_memory.killed_processes() > self._killed_before:
            limit = main_memory.limit_bytes()
            size = f" of {limit / 2**30:.1f} GiB" if limit else ""
            failure = TrainerError(
                Exit.HOST_OUT_OF_MEMORY,
                Reason.HOST_OUT_OF_MEMORY,
                f"the kernel killed process {rank} of {self.spec.scale.world_size}, because the "
                f"trainer reached its limit{size} of main memory",
                "lower train.batch_size or train.max_length",
            )
            return termination.make_termination(failure, self.redact, attempt=self.start.attempt)
        failure = TrainerError(
            code,
            Reason.PROCESS_KILLED if code > _SIGNALLED else Reason.PROCESS_FAILED,
            f"process {rank} of {self.spec.scale.world_size} {how}",
            "if the pod ran out of memory, lower train.batch_size or train.max_length"
            if is_killed
            else "see flash log",
        )
        return termination.make_termination(failure, self.redact, attempt=self.start.attempt)

    # --- ending ---------------------------------------------------------------------------------

    @contextmanager
    def _forward_sigterm(self) -> Iterator[None]:
        """Forward SIGTERM to rank 0, instead of ending the launcher."""
        self.interruption.training_begins()

        def forward(*_: object) -> None:
            self.interruption.requested = True
            self._events.put(StopRequested())

        before = signal.signal(signal.SIGTERM, forward)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def _kill_at_the_end(self) -> Iterator[None]:
        """Kill the processes, and what they have started, at the end."""
        try:
            yield
        finally:
            for process in self._processes:
                _kill_process_group(process)

    def _signal_all(self, number: int) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def _stop_processes(self) -> None:
        """Send SIGTERM to the processes that still run, and wait for them.

        A process that has started to end may upload, and gets the time for it.
        """
        self._signal_all(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_GRACE_SECONDS
        for local_rank, process in enumerate(self._processes):
            if not _ends_before(deadline, process) and self._has_started_to_end(local_rank):
                _ends_before(deadline + self.spec.upload_timeout_seconds, process)
            if process.poll() is None:
                log.warning(
                    "the process of local rank %d does not end by itself: killed", local_rank
                )
                _kill_process_group(process)


class OutputForwarder:
    """Forwards the output of a process to stdout, with a prefix before each line."""

    def __init__(self, prefix: str, stream: IO[bytes]) -> None:
        self._prefix = prefix
        self._stream = stream
        self._tail: deque[str] = deque(maxlen=_LOG_TAIL_LINES)
        self._thread = threading.Thread(target=self._forward, daemon=True)
        self._thread.start()

    def tail(self) -> str:
        """Return the last lines of a process that has ended."""
        # A child process may hold the output open: do not wait for it.
        self._thread.join(1.0)
        return "\n".join(self._tail)

    def _forward(self) -> None:
        with self._stream:
            for line in self._stream:
                text = line.decode("utf-8", "replace").rstrip("\n")
                self._tail.append(text)
                os.write(1, f"{self._prefix}{text}\n".encode())


def _ends_before(deadline: float, process: subprocess.Popen[bytes]) -> bool:
    """Wait for the end of a process; return False when it still runs at the deadline."""
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill_process_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its child processes."""
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


def _end_by_lost_peer(index: int, silent: bool) -> EndMessage:
    """Return the end of a pod that has lost the connection to another one.

    The other pod's own exit code decides whether that counts as a failure. When its node does not
    answer, no other pod may ever report it, so this pod's exit code counts.
    """
    if silent:
        code, what = Exit.NCCL, "does not answer any more"
    else:
        code, what = Exit.INTERRUPTED_UNSAVED, "has gone away"
    message = f"pod {index} of this attempt {what}; the run continues from its last checkpoint"
    return EndMessage(code=code, termination=Termination(reason=Reason.PEER_LOST, message=message))


def _end_by_failed_peer(index: int, end: EndMessage) -> EndMessage:
    """Return the end of a pod that ends because another one has failed.

    The failure is counted and explained in the other pod: once, and only for its node.
    """
    message = f"pod {index} of this attempt ended with code {end.code}"
    if end.termination is not None:
        message = f"{message}: {end.termination.message}"
    return EndMessage(
        code=Exit.INTERRUPTED_UNSAVED,
        termination=Termination(
            reason=Reason.PEER_FAILED,
            message=shorten(message),
            hint=end.termination.hint if end.termination is not None else "",
        ),
    )
