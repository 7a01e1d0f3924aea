"""What holds for the decisions about every run, by property."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from flashrun.api.reasons import Phase
from flashrun.plan.commits import CommitSummary
from flashrun.plan.types import StorageView
from tests.plan import worlds
from tests.plan.worlds import (
    ADAPTER,
    PUSHED,
    World,
    checkpoint,
    make_pod,
    make_run,
    running,
)


def test_a_deleted_run_needs_nothing_from_the_operator() -> None:
    world = running()
    decision = replace(world, run=world.run.model_copy(update={"deleting": True})).decide()

    assert (decision.apply, decision.patch, decision.delete) == ((), (), ())


pods = st.builds(
    make_pod,
    name=st.sampled_from(["pod-0", "pod-1", "pod-2"]),
    index=st.sampled_from([None, 0, 1]),
    exit_code=st.one_of(st.none(), st.integers(0, 255)),
    container=st.sampled_from(["model", "packages", "trainer"]),
    reason=st.sampled_from(["Error", "OOMKilled"]),
    disrupted=st.sampled_from(["", "PreemptionByScheduler"]),
    unschedulable=st.sampled_from(["", "0/1 nodes are available."]),
    waiting=st.sampled_from([None, ("ImagePullBackOff", "x"), ("CreateContainerConfigError", "y")]),
)
SAVED = (CommitSummary.of(checkpoint(5)), CommitSummary.of(checkpoint(10)))
storages = st.builds(
    StorageView,
    problem=st.sampled_from(["", "", "", "S3 is away."]),
    environment=st.sampled_from([None, PUSHED.environment]),
    heartbeat=st.sampled_from(
        [None, worlds.heartbeat(3), worlds.heartbeat(9, warning="No spread.")]
    ),
    result=st.sampled_from([None, None, worlds.result(), worlds.result(70), worlds.result(72)]),
    ending=st.sampled_from([None, None, None, *worlds.ENDINGS]),
    claims=st.sampled_from([(), (worlds.claim(),)]),
    checkpoints=st.sampled_from([(), (SAVED[0],), SAVED]),
    adapter=st.sampled_from([None, CommitSummary.of(ADAPTER)]),
)
controls = st.fixed_dictionaries(
    {}, optional={"suspend": st.booleans(), "cancel": st.booleans(), "save_request": st.just("s")}
)


@st.composite
def any_world(draw: st.DrawFn) -> World:
    world = World(
        make_run(
            {"algorithm": draw(st.sampled_from(["sft", "grpo"]))}
            | {"model": draw(st.sampled_from([worlds.TINY, worlds.WIDE]))}
            | ({"train": {"max_tokens": 32, "max_length": 128}}),
            **draw(controls),
        ),
        platform=draw(st.sampled_from([worlds.PLATFORM, worlds.NODES])),
    )
    if draw(st.booleans()):
        world = world.settled()
        if draw(st.booleans()):
            jobs = tuple(map(worlds.failed_job, world.observed.jobs))
            world = world.seeing(jobs=jobs)
    by_name = {pod["metadata"]["name"]: pod for pod in draw(st.lists(pods, max_size=3))}
    return world.seeing(pods=tuple(by_name.values()), storage=draw(storages))


@settings(max_examples=300, deadline=None)
@given(any_world())
def test_decisions_settle(world: World) -> None:
    for _ in range(6):  # a retry in another place takes a pass of its own
        world = world.act(world.decide())
    decision = world.decide()

    assert decision.status == world.run.status
    assert (decision.apply, decision.patch, decision.secrets) == ((), (), None)
    assert decision.events == ()


@settings(max_examples=200, deadline=None)
@given(any_world())
def test_the_same_world_gets_the_same_decision(world: World) -> None:
    assert world.decide() == world.decide()


@settings(max_examples=200, deadline=None)
@given(any_world(), storages)
def test_a_finished_run_stays_finished(world: World, storage: StorageView) -> None:
    done = world.act(world.decide())
    if done.run.status.phase not in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED):
        return
    after = done.seeing(jobs=(), pods=(), storage=storage).settled()

    assert after.run.status.phase is done.run.status.phase
    assert after.observed.jobs == ()


@settings(max_examples=200, deadline=None)
@given(any_world())
def test_status_stays_small_and_readable(world: World) -> None:
    status = world.act(world.decide()).run.status

    assert len(str(status.to_patch())) < 10_000
    for condition in status.conditions:
        assert condition.reason
        assert "\n" not in condition.message
