"""Job launch: a run without a Job gets one, the first or again after somebody deleted it."""

from flashrun.api.platform import Pool
from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.api.resource import FailureStatus
from flashrun.plan import objects, pins, run_status
from flashrun.plan.decisions import RECHECK_SECONDS, delete_jobs, fail_run, wait
from flashrun.plan.job_start import pin_run, start_job
from flashrun.plan.kueue_workloads import suspend_patches
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def launch_job(context: RunContext) -> Decision | None:
    """Create the Job and everything that its pods need; a Job that was deleted resumes.

    Another Job of the run is removed first, and its pods end: pods of two Jobs would compete for
    GPUs.
    """
    if context.job is not None and not context.stray_jobs:
        return None
    if context.stray_jobs or any(pod.holds_node for pod in context.pods):
        return _remove_strays(context)
    storage = context.observed.storage
    if problem := storage.problem:  # it may say that the run has ended
        return wait(context, storage.problem_reason, problem, ConditionType.CHECKPOINTS_SYNCED)
    place = context.find_placement()
    if place is None:  # the platform changed under a run that it had accepted
        failure = FailureStatus(
            reason=Reason.NO_POOL,
            message=f"{context.run.spec.model} no longer fits in any pool of this cluster.",
            hint="Choose a smaller model (flash models), or ask the platform's administrator.",
        )
        return fail_run(context, failure)
    resolved = context.pinned
    before = context.run.status.resolved
    if resolved is None or before is None:
        placement = objects.JobPlacement(0, place.pool, place.scale)
        resolved = pin_run(context, place.scale)
    else:
        pool = _pinned_pool(context, before.pool) or place.pool
        placement = objects.JobPlacement(before.job, pool, place.scale, before.avoid_nodes)
        if not before.spec_digest:  # pinned by a version that did not pin all of this
            resolved = pins.with_trainer_settings(resolved, context.platform.trainer)
    return start_job(context, resolved, placement, Reason.LAUNCHED, "The Job was created.")


def _remove_strays(context: RunContext) -> Decision:
    """Delete the Jobs that are not the run's newest, suspend retired ones, wait for their pods."""
    status = run_status.with_phase(
        context.status,
        context.run,
        context.now,
        phase=Phase.RETRYING if context.status.attempts else Phase.PENDING,
        reason=Reason.POD_PENDING,
        message="Waits for the pods of an earlier Job of this run to end.",
    )
    retired = (
        job
        for job in context.observed.jobs
        if job not in context.stray_jobs and job is not context.job
    )
    return Decision(
        status=status,
        patch=tuple(
            patch for job in retired for patch in suspend_patches(job, context.workload_of(job))
        ),
        delete=delete_jobs(context.stray_jobs),
        requeue_seconds=RECHECK_SECONDS,
    )


def _pinned_pool(context: RunContext, name: str) -> Pool | None:
    """Return the pool that the run was placed in, while it has room for the run's scale."""
    pools = [pool for pool in context.platform.pools if pool.name == name]
    place = context.find_placement(pools)
    return None if place is None else place.pool
