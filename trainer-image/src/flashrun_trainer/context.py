"""The one value that travels through an attempt."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from flashrun.api.records import ResolvedRun
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.data.held_out import HeldOutSplit
from flashrun_trainer.pod.distributed import ProcessGroup
from flashrun_trainer.pod.interruption import Interruption
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.redaction import Redactor
from flashrun_trainer.records.attempts import ClaimedAttempt
from flashrun_trainer.records.checkpoint_uploads import Uploader
from flashrun_trainer.records.reporter import Reporter
from flashrun_trainer.records.wandb_process import Tracker
from flashrun_trainer.trl_arguments import Machine


@dataclass(frozen=True)
class TrainContext:
    """Everything around a training method: inputs, machine, and where its results go."""

    pod: PodMounts
    run: ResolvedRun
    attempt: ClaimedAttempt
    environment: Environment
    held_out: HeldOutSplit
    reporter: Reporter
    uploader: Uploader
    tracker: Tracker
    interruption: Interruption
    redact: Redactor
    machine: Machine
    process_group: ProcessGroup
    end_interrupted: Callable[[Callable[[], int]], NoReturn]
    """Ends this process after a SIGTERM; the argument saves a step and returns its number."""

    @property
    def sharded(self) -> bool:
        """Whether the base model is sharded over the processes."""
        return self.run.scale.sharded and self.process_group.world_size > 1
