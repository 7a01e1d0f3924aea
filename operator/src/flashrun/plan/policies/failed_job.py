"""Failed Job: retry what failed because of its pool or node somewhere else, else fail the run.

Failures that have nothing to do with the place are retried by the Job itself, and counted there.
"""

from flashrun.api.exits import FAILING_CODES
from flashrun.api.platform import Pool
from flashrun.api.reasons import KubernetesReason, Phase, Reason, Retry
from flashrun.api.records import ResolvedRun
from flashrun.api.resource import ResolvedStatus
from flashrun.plan import failures, objects, out_of_memory
from flashrun.plan.decisions import fail_run
from flashrun.plan.job_start import limits_after, start_job
from flashrun.plan.kubernetes_status import find_condition
from flashrun.plan.pods import Pod
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision, Object


def retry_or_fail(context: RunContext) -> Decision | None:
    """Retry or fail the run when its Job has ended or a pod needs more memory than it has."""
    job, resolved, pinned = context.job, context.pinned, context.run.status.resolved
    if job is None or resolved is None or pinned is None:
        return None
    if find_condition(job, "Complete") is not None and not context.observed.storage.problem:
        return fail_run(context, failures.NO_RESULT)  # storage was read after the Job
    failed = find_condition(job, "Failed")
    if failed is None and _left_no_result(context):
        return fail_run(context, failures.NO_RESULT, delete_jobs=True)
    last = _last_failed_pod(context, pinned.job)
    if failed is None and last is not None and _evicted_too_often(context, pinned, last):
        return fail_run(context, failures.pod_failure(last), delete_jobs=True)
    outgrown = last is not None and failures.pod_retry(last) is Retry.LARGER_POOL
    if failed is None and not outgrown:
        return None
    pool = next((pool for pool in context.platform.pools if pool.name == pinned.pool), None)
    retry = _retry_placement(context, resolved, pinned, pool, last)
    if retry is not None:
        reason = failures.pod_reason(last) if last else Reason.RETRYING
        gpus = f" on {retry.scale.world_size} GPUs" if retry.scale.world_size > 1 else ""
        where = f"pool {retry.pool.name}{gpus}"
        message = f"{reason}: the run continues in {where} from the newest checkpoint."
        return start_job(
            context,
            resolved,
            retry,
            reason,
            message,
            phase=Phase.RETRYING,
            retire=job,
            limits=limits_after(context, job),
        )
    if last is not None and outgrown and not _reached_deadline(failed):
        if failed is None and last.exit_code in FAILING_CODES:
            return None  # the Job fails in a moment, and keeps its pods
        failure = out_of_memory.memory_failure(context, resolved, pool, last)
        # The Job counts a pod that the kernel ended, and would start it again.
        return fail_run(context, failure, delete_jobs=failed is None)
    if failed is None:
        return None
    failure = failures.job_failure(failed.get("reason", ""), failed.get("message", ""), last)
    return fail_run(context, failure)


def _reached_deadline(failed: Object | None) -> bool:
    return failed is not None and failed.get("reason") == KubernetesReason.DEADLINE_EXCEEDED


def _retry_placement(
    context: RunContext,
    resolved: ResolvedRun,
    pinned: ResolvedStatus,
    pool: Pool | None,
    last: Pod | None,
) -> objects.JobPlacement | None:
    """Return where another Job can continue, for failures that this Job cannot retry."""
    number, scale = pinned.job, resolved.scale
    if last is None or pool is None or number - pinned.renewals >= pinned.retries:
        return None
    match failures.pod_retry(last):
        case Retry.LARGER_POOL:
            larger = out_of_memory.roomier_placement(context, resolved, pool, last)
            if larger is None:
                return None
            return objects.JobPlacement(number + 1, larger.pool, larger.scale)
        case Retry.OTHER_NODE:
            bad = {pod.node for pod in context.pods if failures.pod_retry(pod) is Retry.OTHER_NODE}
            return objects.JobPlacement(number + 1, pool, scale, tuple(sorted(bad - {""}))[:64])
        case _:
            return None


def _left_no_result(context: RunContext) -> bool:
    """Return whether the trainer ended with exit code 0, and its Job would start it again.

    A container that another program added has failed the pod. Storage was read after the pods.
    """
    pods = context.current_pods
    if not pods or context.observed.storage.problem or context.observed.storage.result is not None:
        return False
    return pods[0].phase == "Failed" and pods[0].exit_code == 0 and not pods[0].evicted


def _evicted_too_often(context: RunContext, pinned: ResolvedStatus, last: Pod) -> bool:
    """Return whether evictions for the pod's own limits have used up the retries, or one is enough.

    The Job counts the exit code of the trainer, which is often that of an interruption.
    """
    evictions = sum(attempt.reason is Reason.EVICTED for attempt in context.status.attempts)
    return last.evicted and (last.overfilled_shared_memory or evictions > pinned.retries)


def _last_failed_pod(context: RunContext, number: int) -> Pod | None:
    """Return the pod because of which the newest failed attempt of Job ``number`` ended."""
    first_failures = [
        attempt.first_failure for attempt in context.attempts if attempt.leader.job == number
    ]
    failed = [pod for pod in first_failures if not pod.active and pod.exit_code != 0]
    return failed[-1] if failed else None
