"""A run at one moment, and its checkpoints, as the Python client returns them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from flashrun.api.reasons import TERMINAL, Phase
from flashrun.api.resource import CheckpointStatus, FlashRun
from flashrun.cli.output import formatting


@dataclass(frozen=True, repr=False)
class RunState:
    """A run at one moment."""

    resource: FlashRun
    """The whole run: its config in ``spec``, everything that is known about it in ``status``."""

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.resource.name

    @property
    def phase(self) -> Phase:
        """One word for people, such as ``Running``; it is equal to the text."""
        return self.resource.status.phase

    @property
    def ended(self) -> bool:
        """Whether the run has succeeded, failed or was cancelled, and stays so."""
        return self.phase in TERMINAL

    @property
    def succeeded(self) -> bool:
        """Whether the adapter is in storage."""
        return self.phase is Phase.SUCCEEDED

    @property
    def step(self) -> int:
        """Steps that were trained; 0 before the first."""
        progress = self.resource.status.progress
        return progress.step if progress is not None else 0

    @property
    def total_steps(self) -> int | None:
        """Steps that the run trains; None while this is not known."""
        progress = self.resource.status.progress
        return progress.total_steps if progress is not None else None

    @property
    def metrics(self) -> dict[str, float]:
        """The values of the last step in the status; ``Run.metrics`` has those of all steps."""
        progress = self.resource.status.progress
        given = progress.metrics if progress is not None else {}
        return {key: float(value) for key, value in given.items()}

    @property
    def sentence(self) -> str:
        """The state in one sentence: the progress, why the run waits, or how it ended and why."""
        return formatting.outcome(self.resource)[0]

    def __str__(self) -> str:
        """Return the sentence."""
        return self.sentence

    def __repr__(self) -> str:
        """Return one line: the whole resource would fill the screen of a notebook."""
        return f"<RunState {self.sentence}>"


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint of a run."""

    ref: str
    """Its reference, for ``Client.pull`` and ``train.init_from_adapter``."""
    step: int
    bytes: int
    score: float | None
    """Its score on held-out examples, if it was evaluated."""
    created: datetime

    @classmethod
    def of(cls, status: CheckpointStatus) -> Self:
        """Return the checkpoint that a status lists."""
        score = float(status.score) if status.score is not None else None
        return cls(status.ref, status.step, status.bytes, score, status.created_time)
