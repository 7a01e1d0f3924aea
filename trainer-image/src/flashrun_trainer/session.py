"""The one value that travels through an attempt."""

from dataclasses import dataclass

from flashrun.spec.records import ResolvedRun
from flashrun_trainer.arguments import Machine
from flashrun_trainer.attempt import Attempt
from flashrun_trainer.checkpoints import Uploader
from flashrun_trainer.environment import Environment
from flashrun_trainer.failures import Redactor
from flashrun_trainer.interruption import Interruption
from flashrun_trainer.pod import Pod
from flashrun_trainer.ranks import Ranks
from flashrun_trainer.report import Reporter
from flashrun_trainer.tracking import Tracker


@dataclass(frozen=True)
class Session:
    """Everything that a method needs to train, and nothing of how."""

    pod: Pod
    run: ResolvedRun
    attempt: Attempt
    environment: Environment
    reporter: Reporter
    uploader: Uploader
    tracker: Tracker
    interruption: Interruption
    redact: Redactor
    machine: Machine
    ranks: Ranks

    @property
    def sharded(self) -> bool:
        """Whether the base model is spread over the processes."""
        return self.run.scale.sharded and self.ranks.world > 1
