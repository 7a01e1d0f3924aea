"""A run without memory: where it goes, and what the user reads when there is no such place."""

from dataclasses import replace
from typing import Any

import pytest

from flashrun.api.platform import Pool
from tests.plan import worlds
from tests.plan.worlds import PLATFORM, World, make_pod, running

OOM_KILLED: dict[str, Any] = {"exit_code": 137, "reason": "OOMKilled"}


def in_pools(*pools: Pool, config: dict[str, Any] | None = None) -> World:
    """A run that trains in the first of these pools."""
    platform = PLATFORM.model_copy(update={"pools": pools})
    world = replace(World(worlds.make_run(config)), platform=platform).settled()
    return world.seeing(pods=(make_pod(),)).settled()


@pytest.mark.parametrize("failed", [True, False], ids=["after its Job", "before its Job"])
def test_a_host_out_of_memory_is_never_tried_again_in_the_same_place(failed: bool) -> None:
    """The Job counts the pod and would start it again after ten seconds."""
    world = in_pools(Pool(name="small", vram=24, memory="2Gi"))
    [job] = world.observed.jobs
    jobs = (worlds.failed_job(job, "BackoffLimitExceeded") if failed else job,)
    decision = world.seeing(pods=(make_pod(**OOM_KILLED),), jobs=jobs).decide()

    failure = decision.status.failure
    assert failure is not None
    assert (failure.reason, failure.exit_code) == ("HostOutOfMemory", 137)
    assert failure.message == (
        "Container trainer used more main memory than its limit. Pool small gives the trainer 2Gi "
        "of main memory. No pool that fits the run has more main memory per GPU."
    )
    assert failure.hint == (
        "Lower train.batch_size or train.max_length. Here train.batch_size is 32, train.max_length "
        "128."
    )
    assert [item.kind for item in decision.delete] == ([] if failed else ["Job"])
    assert decision.apply == ()


def test_what_the_last_heartbeat_measured_is_shown() -> None:
    world = in_pools(Pool(name="small", vram=24, memory="2Gi"))
    world = world.stored(heartbeat=worlds.heartbeat(3, main_memory=1610612736))
    failure = world.seeing(pods=(make_pod(**OOM_KILLED),)).decide().status.failure

    assert failure is not None
    assert "2Gi of main memory; its last heartbeat (after step 3) had 1.5 GiB in use." in (
        failure.message
    )


def test_a_host_out_of_memory_goes_where_there_is_more_main_memory() -> None:
    """A GPU with more memory of its own does not help."""
    world = in_pools(
        Pool(name="first", vram=24, cost=1, memory="32Gi"),
        Pool(name="larger-gpu", vram=80, cost=2, memory="16Gi"),
        Pool(name="more-memory", vram=24, cost=3, memory="64Gi"),
    )
    decision = world.seeing(pods=(make_pod(**OOM_KILLED),)).decide()

    assert decision.status.resolved is not None
    assert decision.status.resolved.pool == "more-memory"
    ready = decision.status.condition("Ready")
    assert ready is not None
    assert "the run continues in pool more-memory" in ready.message


def test_a_pool_that_would_fit_is_named_when_no_retry_is_left() -> None:
    """Each memory failure goes to another pool; the platform allows three such moves."""
    sizes = ("1Gi", "2Gi", "4Gi", "8Gi", "16Gi")
    world = in_pools(*(Pool(name=f"pool-{n}", vram=24, cost=n, memory=size)
                       for n, size in enumerate(sizes, 1)))  # fmt: skip
    for number in range(PLATFORM.trainer.retries + 1):
        pod = make_pod(f"pod-{number}", number=number, **OOM_KILLED)
        decision = world.seeing(pods=(pod,)).decide()
        world = world.act(decision)

    failure = decision.status.failure
    assert failure is not None
    assert "Pool pool-4 gives the trainer 8Gi" in failure.message
    assert "Pool pool-5 has more (16Gi), but the run has used up its retries." in failure.message


@pytest.mark.parametrize("code", [68, 137])
def test_an_init_container_without_memory_is_tried_in_no_other_pool(code: int) -> None:
    world = running()
    [job] = world.observed.jobs
    reason = "OOMKilled" if code == 137 else ""
    pod = make_pod(exit_code=code, reason=reason, container="packages")
    jobs = (worlds.failed_job(job),)
    decision = world.seeing(pods=(pod,), jobs=jobs).decide()

    failure = decision.status.failure
    assert failure is not None
    assert "Init container packages gets 4Gi." in failure.message
    assert "wheels" in failure.hint
    assert decision.apply == ()


def test_a_gpu_out_of_memory_names_the_size_of_the_gpu_and_keeps_what_was_measured() -> None:
    world = in_pools(Pool(name="small", vram=24))
    [job] = world.observed.jobs
    measured = worlds.termination("CudaOutOfMemory", "the GPU ran out of memory")
    pod = make_pod(exit_code=65, termination=measured)
    decision = world.seeing(pods=(pod,), jobs=(worlds.failed_job(job),)).decide()

    failure = decision.status.failure
    assert failure is not None
    assert failure.message == (
        "the GPU ran out of memory. A GPU of pool small has 24 GiB. No pool that fits the run has "
        "more memory."
    )
    assert failure.hint.startswith("See flash log. Here train.batch_size is 32")
