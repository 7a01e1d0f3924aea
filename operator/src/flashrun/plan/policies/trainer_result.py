"""Trainer result: the record in storage with which a trainer ends decides how the run ended."""

from flashrun.api.exits import Exit
from flashrun.api.reasons import Phase, Reason
from flashrun.plan import failures, run_status
from flashrun.plan.decisions import fail_run
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def finish_run(context: RunContext) -> Decision | None:
    """Believe the terminal record in storage, and for a success also the adapter's manifest."""
    result = context.observed.storage.result
    if result is None:
        return None
    if result.exit_code != Exit.DONE:
        return fail_run(context, failures.result_failure(result))
    if context.observed.storage.adapter is None:
        return None
    checkpoints = run_status.checkpoints_text(context.status)
    return Decision(
        status=run_status.with_phase(
            context.status,
            context.run,
            context.now,
            phase=Phase.SUCCEEDED,
            reason=Reason.TRAINED,
            message=f"Trained; adapter {context.run.name} and {checkpoints} are in storage.",
        )
    )
