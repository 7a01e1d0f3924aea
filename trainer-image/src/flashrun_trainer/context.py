"""The one value that travels through an attempt."""

from dataclasses import dataclass

from flashrun.api.records import ResolvedRun
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.pod.distributed import Ranks
from flashrun_trainer.pod.interruption import Interruption
from flashrun_trainer.pod.mounts import Pod
from flashrun_trainer.pod.trainer_errors import Redactor
from flashrun_trainer.records.attempt import Attempt
from flashrun_trainer.records.checkpoint_uploads import Uploader
from flashrun_trainer.records.reporter import Reporter
from flashrun_trainer.records.wandb_process import Tracker
from flashrun_trainer.trl_arguments import Machine


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
