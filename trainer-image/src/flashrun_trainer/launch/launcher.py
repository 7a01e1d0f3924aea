"""Process 1 of a pod that trains with several processes: starts them, and says how it ended.

PyTorch's own launcher turns every exit code into 1, and restarts what must not be restarted
(docs/decisions/0006-own-launcher.md). This one does less: it claims the attempt, starts one process
a GPU, hands SIGTERM on, and ends with the code and the sentence of the process that failed first.
What the others say after that comes of being left alone. It imports no PyTorch: it costs no memory.
"""

import logging
import socket
from dataclasses import dataclass

from flashrun.api import names
from flashrun.api.records import ResolvedRun
from flashrun.store import Store
from flashrun.store_errors import StoreError
from flashrun_trainer import run_attempt
from flashrun_trainer.launch import rendezvous
from flashrun_trainer.launch.rendezvous import Ended, Link, Meeting, Start
from flashrun_trainer.launch.workers import Team
from flashrun_trainer.pod.interruption import Interruption
from flashrun_trainer.pod.log_tee import Tee
from flashrun_trainer.pod.mounts import Pod
from flashrun_trainer.pod.trainer_errors import Redactor, TrainerError, explain
from flashrun_trainer.records import attempt as attempts
from flashrun_trainer.records import termination
from flashrun_trainer.records.attempt import Attempt

log = logging.getLogger(__name__)


def run(pod: Pod) -> int:
    """Train in this process, or in as many as the run asks for, and return the exit code."""
    try:
        spec = pod.run()
    except TrainerError:
        return run_attempt.run(pod)  # which says so
    if spec.scale.world_size == 1:
        return run_attempt.run(pod)
    interruption = Interruption()
    interruption.listen()
    redact = termination.redactor_of(pod)
    with Tee(pod.work / "attempt.log", redact) as tee:
        try:
            ended = Launch(pod, spec, pod.store(), interruption, redact, tee).run()
        except BaseException as error:
            end = explain(error)
            termination.report(error, end, redact)
            ended = Ended(code=end.code, termination=termination.termination(end, redact))
    termination.leave(pod.termination, ended.termination)
    return ended.code


@dataclass(frozen=True)
class Launch:
    """One pod's part of an attempt."""

    pod: Pod
    spec: ResolvedRun
    store: Store
    interruption: Interruption
    redact: Redactor
    tee: Tee

    def run(self) -> Ended:
        """Lead the attempt, or follow, unless the run has ended before."""
        if (earlier := attempts.earlier_result(self.store, self.spec)) is not None:
            log.info("run %s has ended before, with code %d", earlier.run.name, earlier.exit_code)
            return Ended(code=earlier.exit_code, termination=earlier.termination)
        return self._lead() if self.pod.index == 0 else self._follow()

    def _lead(self) -> Ended:
        """Claim an attempt once all pods are there, and make it."""
        links: list[Link] = []
        if self.spec.scale.nodes > 1:
            with Meeting(self.pod, self.spec) as meeting:
                links = meeting.wait()
        attempt = attempts.claim(self.store, self.spec, self.pod)
        start = Start(attempt=attempt.number, port=_free_port())
        for link in links:
            link.send(start)
        ended = self._team(start, links).work()
        self._finish_records(attempt, ended)
        return ended

    def _follow(self) -> Ended:
        def is_over() -> bool:
            return attempts.earlier_result(self.store, self.spec) is not None

        met = rendezvous.follow(self.pod, self.spec, is_over)
        if met is None:
            return self.run()
        link, start = met
        return self._team(start, [link]).work()

    def _team(self, start: Start, links: list[Link]) -> Team:
        return Team(self.pod, self.spec, start, links, self.interruption, self.redact)

    def _finish_records(self, attempt: Attempt, ended: Ended) -> None:
        """Upload the end of the log, and take back the heartbeat of a run that has ended."""
        log.info("attempt %d ends with code %d", attempt.number, ended.code)
        self.tee.sync()
        key = names.log_key(attempt.prefix, attempt.number)
        try:
            self.store.put_bytes(key, self.tee.path.read_bytes(), "text/plain; charset=utf-8")
            if attempts.earlier_result(self.store, self.spec) is not None:
                self.store.delete([names.heartbeat_key(self.spec.run.uid)])
        except StoreError as error:
            log.warning("the end of the log is not uploaded: %s", error)


def _free_port() -> int:
    with socket.create_server(("", 0)) as place:
        port: int = place.getsockname()[1]
        return port
