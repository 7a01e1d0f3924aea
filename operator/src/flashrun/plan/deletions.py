"""Status of a run that is being deleted, while finalizers of other programs still hold it.

Its Jobs are deleted, the record of its end is written, and it trains no more. Only those programs
can let it go.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from flashrun.api.bounds import clean_text
from flashrun.api.reasons import TERMINAL, Phase, Reason
from flashrun.api.resource import FlashRun, FlashRunStatus, PendingStatus
from flashrun.plan import run_status

_FINALIZERS_SHOWN: Final = 8


def deleted_status(
    run: FlashRun, finalizers: Sequence[str], now: datetime, *, ended: bool
) -> FlashRunStatus:
    """Return the status of a run whose end is recorded; ``ended`` when no pod of it is left."""
    if run.status.phase in TERMINAL:
        return run.status
    what = "its checkpoints are kept." if ended else "its pods are ending."
    message = f"The run was deleted; {what}{_held_by(finalizers)}"
    return run_status.with_phase(
        run.status.replace(observed_generation=run.generation, pending=None),
        run,
        now,
        phase=Phase.CANCELLED if ended else Phase.CANCELLING,
        reason=Reason.DELETED,
        message=message,
    )


def unfinished_deletion(
    run: FlashRun, finalizers: Sequence[str], reason: Reason, message: str, now: datetime
) -> FlashRunStatus:
    """Return the status of a run whose deletion an error interrupts; the next pass tries again."""
    if run.status.phase in TERMINAL:
        return run.status
    sentence = f"The deletion of the run is not finished, and is tried again: {message}"
    sentence = clean_text(f"{sentence.rstrip('.')}.{_held_by(finalizers)}")
    return run_status.with_phase(
        run.status.replace(
            observed_generation=run.generation,
            pending=PendingStatus(reason=reason, message=sentence),
        ),
        run,
        now,
        phase=Phase.CANCELLING,
        reason=reason,
        message=sentence,
    )


def _held_by(finalizers: Sequence[str]) -> str:
    """Return a sentence about the programs that keep the object, with a space before it."""
    if not finalizers:
        return ""
    named = ", ".join(finalizers[:_FINALIZERS_SHOWN])
    noun = "finalizer" if len(finalizers) == 1 else "finalizers"
    return f" The object stays until other programs remove their {noun} {named}."
