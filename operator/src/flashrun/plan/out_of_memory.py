"""Out of memory: where a run has more of it, and what the user reads when there is no such place.

The same try in the same place would end in the same way.
"""

from flashrun.api.platform import Pool
from flashrun.api.pod import PACKAGES_CONTAINER, TRAINER_CONTAINER
from flashrun.api.quantities import multiply_quantity
from flashrun.api.records import ResolvedRun
from flashrun.api.resource import FailureStatus
from flashrun.api.sentences import join_sentences
from flashrun.plan import placement
from flashrun.plan.failures import pod_failure
from flashrun.plan.objects import INIT_MEMORY
from flashrun.plan.placement import Placement
from flashrun.plan.pods import Pod
from flashrun.plan.run_context import RunContext


def roomier_placement(
    context: RunContext, resolved: ResolvedRun, pool: Pool, pod: Pod
) -> Placement[Pool] | None:
    """Return where the run has more of the memory that ``pod`` lacked in ``pool``, or None."""
    model = context.model
    need = 0 if model is None else model.vram(resolved.algorithm)
    here, pools = Placement(pool, resolved.scale), context.platform.pools
    if not pod.lacked_main_memory:
        return placement.larger_placement(pools, need, resolved.train, here)
    if pod.container != TRAINER_CONTAINER:
        return None  # init containers have the same limit in every pool
    return placement.placement_with_more_main_memory(pools, need, resolved.train, here)


def memory_failure(
    context: RunContext, resolved: ResolvedRun, pool: Pool | None, pod: Pod
) -> FailureStatus:
    """Return the failure of a run that ran out of memory and has no other place to try.

    It names the limit, and what would fit: the pool that has more, else the config's keys with
    their values. A trainer that could still measure has put its numbers into the hint.
    """
    failure = pod_failure(pod)
    if pod.lacked_main_memory and pod.container != TRAINER_CONTAINER:
        return failure.replace(
            message=f"{failure.message} Init container {pod.container} gets {INIT_MEMORY}.",
            hint="Choose versions in environment.pip that the index has as wheels: building a "
            "package takes memory."
            if pod.container == PACKAGES_CONTAINER
            else "Ask the platform's administrator to put the model into the mirror.",
        )
    if pool is None:
        return failure  # the platform has removed it
    place = roomier_placement(context, resolved, pool, pod)
    if pod.lacked_main_memory:
        amount = multiply_quantity(pool.memory, resolved.scale.gpus)
        limit = f"Pool {pool.name} gives the trainer {amount} of main memory{_last_use(context)}."
        kind, has = "more main memory per GPU", "" if place is None else place.pool.memory
    else:
        limit = f"A GPU of pool {pool.name} has {pool.vram:g} GiB."
        kind, has = "more memory", "" if place is None else f"{place.pool.vram:g} GiB per GPU"
    where = (
        f"No pool that fits the run has {kind}."
        if place is None
        else f"Pool {place.pool.name} has more ({has}), but the run has used up its retries."
    )
    train = resolved.train
    values = f"train.batch_size is {train.batch_size}, train.max_length {train.max_length}."
    return failure.replace(
        message=join_sentences(failure.message, limit, where),
        hint=join_sentences(failure.hint, f"Here {values}"),
    )


def _last_use(context: RunContext) -> str:
    """Return what the run's last heartbeat says about main memory, to follow a limit."""
    heartbeat = context.observed.storage.heartbeat
    if heartbeat is None or not heartbeat.main_memory:
        return ""
    used = f"{heartbeat.main_memory / 2**30:.1f} GiB"
    progress = heartbeat.progress
    when = f"after step {progress.step}" if progress and progress.step else heartbeat.activity
    return f"; its last heartbeat ({when}) had {used} in use"
