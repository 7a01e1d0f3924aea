"""SIGTERM: before training it ends the process at once, during training it asks for a last save."""

import signal
from types import FrameType

from flashrun_trainer.pod.trainer_errors import InterruptedBeforeTraining


class Interruption:
    """Whether the pod was asked to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._training = False

    def install_handler(self) -> None:
        """Handle SIGTERM from now on."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def training_begins(self) -> None:
        """Let SIGTERM only set ``requested`` from now on: a step boundary is near.

        What was learned is worth a save, so the training loop stops by itself.
        """
        self._training = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        already, self.requested = self.requested, True
        if not self._training and not already:
            raise InterruptedBeforeTraining
