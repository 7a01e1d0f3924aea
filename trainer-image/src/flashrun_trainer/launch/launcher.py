"""Process 1 of a pod that trains with several processes: starts them, and reports how they ended.

PyTorch's own launcher turns every exit code into 1, and restarts processes that must not be
restarted (docs/decisions/0006-own-launcher.md). This launcher does less. It claims the attempt,
starts one process per GPU, forwards SIGTERM to them, and ends with the exit code and the
termination message of the process that failed first. Later errors are consequences of the first
and are ignored. The launcher does not import PyTorch, to keep its memory small.
"""

import logging
from dataclasses import dataclass

from flashrun.api import names
from flashrun.api.pod import LAST_WORDS
from flashrun.api.records import ResolvedRun
from flashrun.listening import listen_on_all_addresses
from flashrun.store import Store
from flashrun.store_errors import StoreError
from flashrun_trainer import run_attempt
from flashrun_trainer.launch.rendezvous import (
    EndMessage,
    PeerConnection,
    Rendezvous,
    StartMessage,
    join_leader,
)
from flashrun_trainer.launch.workers import WorkerGroup
from flashrun_trainer.pod.interruption import Interruption
from flashrun_trainer.pod.log_tee import Tee
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.redaction import Redactor
from flashrun_trainer.pod.trainer_errors import TrainerError, classify
from flashrun_trainer.records import attempts, termination
from flashrun_trainer.records.attempts import ClaimedAttempt

log = logging.getLogger(__name__)


def run(pod: PodMounts) -> int:
    """Train in this process, or in as many as the run asks for, and return the exit code."""
    try:
        spec = pod.run()
    except TrainerError:
        return run_attempt.run(pod)  # which reports this error
    if spec.scale.world_size == 1:
        return run_attempt.run(pod)
    interruption = Interruption()
    interruption.install_handler()
    redact = termination.pod_redactor(pod)
    with Tee(pod.work / "attempt.log", redact) as tee:
        try:
            end = PodLauncher(pod, spec, pod.store(), interruption, redact, tee).run()
        except BaseException as error:
            failure = classify(error)
            termination.log_error(error, failure, redact)
            message = termination.make_termination(failure, redact)
            end = EndMessage(code=failure.code, termination=message)
    termination.write_termination(pod.termination, end.termination)
    return end.code


@dataclass(frozen=True)
class PodLauncher:
    """One pod's part of an attempt."""

    pod: PodMounts
    spec: ResolvedRun
    store: Store
    interruption: Interruption
    redact: Redactor
    tee: Tee

    def run(self) -> EndMessage:
        """Lead or follow an attempt, and return how it ended; or how the run has ended before."""
        if (earlier := attempts.earlier_result(self.store, self.spec)) is not None:
            log.info("run %s has ended before, with code %d", earlier.run.name, earlier.exit_code)
            return EndMessage(code=earlier.exit_code, termination=earlier.termination)
        return self._lead() if self.pod.index == 0 else self._follow()

    def _lead(self) -> EndMessage:
        """Claim an attempt when all pods are connected, and run this pod's part of it."""
        peers: list[PeerConnection] = []
        if self.spec.scale.nodes > 1:
            with Rendezvous(self.pod, self.spec) as rendezvous:
                peers = rendezvous.wait_for_peers()
        attempt = attempts.claim_attempt(self.store, self.spec, self.pod)
        start = StartMessage(attempt=attempt.number, port=_free_port())
        for peer in peers:
            peer.send(start)
        end = self._workers(start, peers).run()
        self._finish_records(attempt, end)
        return end

    def _follow(self) -> EndMessage:
        """Run this pod's part of the attempt that the leading pod has claimed."""

        def is_over() -> bool:
            return attempts.earlier_result(self.store, self.spec) is not None

        joined = join_leader(self.pod, self.spec, is_over)
        if joined is None:
            return self.run()
        leader, start = joined
        return self._workers(start, [leader]).run()

    def _workers(self, start: StartMessage, peers: list[PeerConnection]) -> WorkerGroup:
        return WorkerGroup(self.pod, self.spec, start, peers, self.interruption, self.redact)

    def _finish_records(self, attempt: ClaimedAttempt, end: EndMessage) -> None:
        """Upload the end of the log, and delete the heartbeat of a run that has ended."""
        log.info(LAST_WORDS, attempt.number, end.code)
        self.tee.sync()
        key = names.log_key(attempt.prefix, attempt.number)
        try:
            self.store.put_bytes(key, self.tee.path.read_bytes(), "text/plain; charset=utf-8")
            if attempts.earlier_result(self.store, self.spec) is not None:
                self.store.delete([names.heartbeat_key(self.spec.run.uid)])
        except StoreError as error:
            log.warning("the end of the log was not uploaded: %s", error)


def _free_port() -> int:
    with listen_on_all_addresses(0) as listener:
        port: int = listener.getsockname()[1]
        return port
