"""Job launch: a run without a Job gets one, the first or again after somebody deleted it."""

from flashrun.api.reasons import Reason
from flashrun.api.resource import FailureStatus
from flashrun.plan import objects
from flashrun.plan.decisions import fail_run
from flashrun.plan.job_start import pin_run, start_job
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def launch_job(context: RunContext) -> Decision | None:
    """Create the Job and everything that its pods need; a Job that was deleted resumes."""
    if context.job is not None:
        return None
    placement = context.find_placement()
    if placement is None:  # the platform changed under a run that it had accepted
        failure = FailureStatus(
            reason=Reason.NO_POOL,
            message=f"{context.run.spec.model} no longer fits in any pool of this cluster.",
            hint="Choose a smaller model (flash models), or ask the platform's administrator.",
        )
        return fail_run(context, failure)
    resolved = context.observed.resolved or pin_run(context, placement.scale)
    first = objects.JobPlacement(0, placement.pool, placement.scale)
    return start_job(context, resolved, first, Reason.LAUNCHED, "The Job was created.")
