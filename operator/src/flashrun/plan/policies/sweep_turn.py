"""Sweep: a run begins when its turn comes, and ends early when others are better."""

from dataclasses import replace
from typing import Final

from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.api.sweep import SweepStatus
from flashrun.plan.decisions import wait
from flashrun.plan.policies.cancellation import end_run
from flashrun.plan.run_context import RunContext
from flashrun.plan.sweep_members import better_runs, goes_on, may_begin
from flashrun.plan.types import Decision

RECHECK_SECONDS: Final = 3.0
"""Time to the next look at the other runs of the sweep: their ends are not watched for this run."""


def wait_for_turn(context: RunContext) -> Decision | None:
    """Let a run wait that has not begun while as many runs of its sweep run as may."""
    sweep, view = context.run.spec.sweep, context.observed.sweep
    if sweep is None or context.pinned is not None:
        return None
    if view is not None and may_begin(context.run.uid, view.members, sweep.limit, view.launched):
        return None
    runs = "one run" if sweep.limit == 1 else f"{sweep.limit} runs"
    message = f"Waits for its turn in sweep {sweep.name}, of which {runs} may run at once."
    decision = wait(context, Reason.SWEEP_LIMIT, message, ConditionType.ACCEPTED)
    return replace(decision, requeue_seconds=RECHECK_SECONDS)


def stop_worse_run(context: RunContext) -> Decision | None:
    """End a run that is not among the better ones of its sweep at its newest rung.

    Once that is decided, it stays: the others may be deleted, or get worse.
    """
    sweep, stands = context.run.spec.sweep, context.status.sweep
    if sweep is None or sweep.stop_worse is None or stands is None or context.pinned is None:
        return None
    why = stands.stopped or _why_worse(context, stands)
    if not why:
        return None
    context = replace(context, status=context.status.replace(sweep=stands.replace(stopped=why)))
    return end_run(
        context,
        ending=(Phase.CANCELLING, Reason.STOPPED_BY_SWEEP),
        ended=(Phase.CANCELLED, Reason.STOPPED_BY_SWEEP),
        sentence=f"{why};",
    )


def _why_worse(context: RunContext, stands: SweepStatus) -> str:
    """Return a sentence if enough runs are better, else an empty string."""
    sweep, view, evaluated = (
        context.run.spec.sweep,
        context.observed.sweep,
        context.status.evaluation,
    )
    if view is None or evaluated is None or sweep is None or sweep.stop_worse is None:
        return ""
    scores = {rung.rung: float(rung.score) for rung in stands.rungs}
    found = better_runs(context.run.uid, evaluated.metric, scores, view.members)
    if found is None or goes_on(sweep.stop_worse, *found[1:]):
        return ""
    rung, better, reached = found
    own = next(item for item in stands.rungs if item.rung == rung)
    return (
        f"Stopped by sweep {sweep.name}: {better} of the {reached} runs that reached step {rung} "
        f"are better there than {evaluated.metric} {own.score}"
    )
