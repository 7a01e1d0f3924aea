"""``status.sweep``: how good a run was at each rung of its sweep, and whether it ends early."""

from flashrun.api.resource import FlashRun
from flashrun.api.sweep import RungStatus, SweepStatus
from flashrun.plan.evaluation_status import score_text
from flashrun.plan.types import StorageView


def sweep_status(run: FlashRun, storage: StorageView) -> SweepStatus | None:
    """Return the status with the rungs that the run has reached; those that it has stay.

    A rung is reached by the first evaluated checkpoint at or after it. A later attempt may evaluate
    the same step again, which changes nothing.
    """
    before, sweep = run.status.sweep, run.spec.sweep
    if sweep is None or sweep.stop_worse is None or storage.problem:
        return before
    scored = [saved for saved in storage.checkpoints if saved.score is not None]
    known = {rung.rung: rung for rung in before.rungs} if before is not None else {}
    for rung in sweep.stop_worse.rungs(max((saved.step for saved in scored), default=0)):
        first = next((saved for saved in scored if saved.step >= rung), None)
        if rung not in known and first is not None and first.score is not None:
            score = score_text(first.score)
            known[rung] = RungStatus(rung=rung, step=first.step, score=score)
    if not known:
        return before
    rungs = tuple(known[rung] for rung in sorted(known))
    return (before or SweepStatus()).replace(rungs=rungs)
