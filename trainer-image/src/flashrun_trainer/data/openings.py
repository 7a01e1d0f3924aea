"""Openings of episodes before training: what is tried again, and what a run can do without."""

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from flashrun.api.reasons import Reason
from flashrun_trainer.data.calls import CallTimeoutError
from flashrun_trainer.data.random_stream import generator_states, set_generator_states
from flashrun_trainer.pod.trainer_errors import TrainerError

log = logging.getLogger(__name__)

Opened = TypeVar("Opened")

_PAUSES_SECONDS: Final = (2.0, 4.0, 8.0)
"""The pauses before openings are tried again, of all rows together."""
_OF_ONE_EPISODE: Final = (
    Reason.ENVIRONMENT_FAILED,
    Reason.TEMPLATE_REFUSED,
    Reason.TEXT_INVALID,
)
"""Why one episode cannot be opened while others can."""


class Openings:
    """Opens an episode of each of a number of rows.

    A run loses the episodes of a row that cannot be opened, and goes on. It ends when more than a
    tenth of the rows (at least two, or the only one) cannot be opened, or when two openings hang.
    """

    def __init__(self, rows: int) -> None:
        self.failures: dict[int, TrainerError] = {}
        """Why an episode could not be opened, by the index of its row."""
        self._rows = rows
        self._pauses = iter(_PAUSES_SECONDS)
        self._hanging = 0

    @property
    def too_many_failed(self) -> bool:
        """Whether more rows have failed than a run can do without."""
        failed = len(self.failures)
        return failed > max(1, self._rows // 10) or failed == self._rows

    def open(self, row: int, opening: Callable[[], Opened]) -> Opened | None:
        """Return what ``opening`` returns for the row of this index; None if the row is lost.

        Raises:
            TrainerError: a run ends with it.
        """
        try:
            return self._open_patiently(opening)
        except TrainerError as error:
            if error.reason not in _OF_ONE_EPISODE:
                raise
            self.failures[row] = error
            self._hanging += _is_hanging(error)
            if self.too_many_failed or self._hanging > 1:
                raise
            return None

    def _open_patiently(self, opening: Callable[[], Opened]) -> Opened:
        """Try again after a pause, while there are pauses."""
        states = generator_states()
        while True:
            try:
                return opening()
            except TrainerError as error:
                if error.reason not in _OF_ONE_EPISODE or _is_hanging(error):
                    raise
                if (pause := next(self._pauses, None)) is None:
                    raise
                log.warning("%s; it is tried again in %g s", error.message, pause)
            time.sleep(pause)
            set_generator_states(states)  # all ranks draw alike, also where only one has failed


def _is_hanging(error: TrainerError) -> bool:
    return isinstance(error.__cause__, CallTimeoutError)
