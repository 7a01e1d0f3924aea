"""Recorded ending: what the operator recorded about the end of a run holds for ever."""

from flashrun.api.reasons import TERMINAL
from flashrun.api.sentences import join_sentences
from flashrun.api.times import whole_seconds
from flashrun.plan import endings, run_status
from flashrun.plan.decisions import delete_jobs, unfinished_jobs
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def repeat_ending(context: RunContext) -> Decision | None:
    """Conclude what storage says the operator concluded before, and delete the Jobs that go on.

    The status may be of a backup that is older than the end of the run.
    """
    ending = context.observed.storage.ending
    if ending is None or ending.phase not in TERMINAL:
        return None
    status = run_status.with_phase(
        context.status.replace(
            failure=endings.failure_of(ending),
            gpu_seconds=max(context.status.gpu_seconds, ending.gpu_seconds),
        ),
        context.run,
        context.now,
        phase=ending.phase,
        reason=ending.reason,
        message=join_sentences(ending.message, ending.hint),
    )
    return Decision(
        status=status.replace(completion_time=whole_seconds(ending.ended)),
        delete=delete_jobs(unfinished_jobs(context.observed.jobs)),
    )
