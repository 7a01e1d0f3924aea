"""A run of a sweep waits for its turn, and ends early when others are better."""

from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.api.records import CheckpointEvaluation
from flashrun.plan.sweep_members import Standing, SweepMember
from flashrun.plan.types import SweepView
from tests.plan.worlds import UID, World, checkpoint, evaluation, make_pod, make_run, running

STOPPING = {"sweep": {"name": "ranks", "limit": 2, "stop_worse": {"first_step": 10}}}


def member(uid: str, standing: Standing, score: float | None = None) -> SweepMember:
    scores = {} if score is None else {10: score}
    return SweepMember(uid, uid, "2026-01-01T00:00:00Z", standing, "score", scores)


def view(*members: SweepMember) -> SweepView:
    return SweepView(members)


def queued(*others: SweepMember) -> World:
    own = member(UID, Standing.WAITS)
    world = World(make_run({"sweep": {"name": "ranks", "limit": 1}}))
    return world.seeing(sweep=view(own, *others))


def test_a_run_waits_while_as_many_runs_of_its_sweep_run_as_may() -> None:
    decision = queued(member("other", Standing.RUNS)).decide()
    assert decision.apply == ()
    assert decision.status.pending is not None
    assert decision.status.pending.reason is Reason.SWEEP_LIMIT
    assert "sweep ranks, of which one run may run at once" in decision.status.pending.message
    assert decision.requeue_seconds is not None


def test_a_run_begins_when_another_one_has_ended_however_it_ended() -> None:
    decision = queued(member("other", Standing.ENDED)).decide()
    assert any(manifest["kind"] == "Job" for manifest in decision.apply)


def test_a_run_whose_sweep_is_not_known_waits() -> None:
    decision = queued().seeing(sweep=None).decide()
    assert decision.status.pending is not None
    assert decision.status.pending.reason is Reason.SWEEP_LIMIT


def test_a_run_that_has_begun_waits_for_no_turn_when_its_job_is_deleted() -> None:
    world = queued().settled()
    crowded = world.seeing(jobs=(), sweep=view(member("other", Standing.RUNS)))
    assert any(manifest["kind"] == "Job" for manifest in crowded.decide().apply)


def scored(score: float, *others: SweepMember) -> World:
    at_ten = checkpoint(10, evaluation=CheckpointEvaluation(metric="score", score=score))
    world = World(make_run(STOPPING)).seeing(sweep=view(member(UID, Standing.WAITS)))
    world = world.settled().seeing(pods=(make_pod(),))
    beat = running().observed.storage.heartbeat
    assert beat is not None
    beat = beat.model_copy(update={"evaluation": evaluation({0: 0.1, 10: score})})
    return world.stored(checkpoints=[at_ten], heartbeat=beat).seeing(sweep=view(*others))


def test_the_worse_half_at_a_rung_saves_and_stops_and_says_why() -> None:
    world = scored(0.5, member("better", Standing.ENDED, 0.6))
    ending = world.decide()
    assert ending.status.phase is Phase.CANCELLING
    assert [item.kind for item in ending.delete] == ["Job"]
    gone = world.act(ending).seeing(pods=(), jobs=())
    ended = gone.decide().status
    ready = ended.condition(ConditionType.READY)
    assert ended.phase is Phase.CANCELLED
    assert ready is not None
    assert ready.reason is Reason.STOPPED_BY_SWEEP
    assert ready.message.startswith(
        "Stopped by sweep ranks: 1 of the 2 runs that reached step 10 are better there than "
        "score 0.5; 1 checkpoint kept"
    )


def test_the_better_half_and_equal_runs_go_on() -> None:
    for others in (
        (member("worse", Standing.RUNS, 0.4),),
        (member("equal", Standing.RUNS, 0.5),),
        (member("better", Standing.RUNS, 0.6), member("worse", Standing.ENDED, 0.4)),
        (member("waits", Standing.WAITS),),
    ):
        assert scored(0.5, *others).decide().status.phase is Phase.RUNNING


def test_a_run_that_was_stopped_stays_stopped_when_the_better_one_is_deleted() -> None:
    world = scored(0.5, member("better", Standing.ENDED, 0.6))
    stopped = world.act(world.decide()).seeing(sweep=view())
    assert stopped.decide().status.phase is Phase.CANCELLING


def test_a_run_of_a_sweep_that_stops_none_goes_on_however_bad_it_is() -> None:
    world = scored(0.5, member("better", Standing.ENDED, 0.6))
    spec = make_run({"sweep": {"name": "ranks", "limit": 2}}).spec
    calm = World(world.run.replace(spec=spec), world.observed)
    assert calm.decide().status.phase is Phase.RUNNING
