"""Pins: the resolved spec follows from the spec and from what the status has pinned."""

import pytest

from flashrun.api import names
from flashrun.api.resource import FlashRunStatus, ResolvedStatus
from flashrun.plan.pins import (
    JobLimits,
    digest_of,
    job_limits,
    pinned_run,
    spec_text,
    train_texts,
    with_trainer_settings,
)
from tests.plan.worlds import DIGEST, PLATFORM, World, make_run


def started() -> World:
    """A run whose Job was created."""
    return World(run=make_run()).settled()


def pinned(world: World) -> ResolvedStatus:
    resolved = world.run.status.resolved
    assert resolved is not None
    return resolved


def with_pins(world: World, **changes: object) -> World:
    status = world.run.status.model_copy(
        update={"resolved": pinned(world).model_copy(update=changes)}
    )
    return World(run=world.run.model_copy(update={"status": status}))


def test_a_run_that_has_not_begun_has_nothing_pinned() -> None:
    assert pinned_run(make_run()) is None
    assert pinned_run(make_run(status=FlashRunStatus(resolved=ResolvedStatus()))) is None


def test_what_is_pinned_gives_the_same_spec_in_every_pass() -> None:
    world = started()
    resolved = pinned_run(world.run)
    assert resolved is not None
    assert resolved.environment.digest == DIGEST
    assert digest_of(spec_text(resolved)) == pinned(world).spec_digest
    assert train_texts(resolved.train) == pinned(world).train


UNUSABLE = {
    "a digest that is not one": {"environment_digest": "latest"},
    "a model source that nobody knows": {"model_source": "floppy"},
    "a training value that is not JSON": {"train": {"epochs": "three"}},
    "no nodes": {"nodes": 0},
}


@pytest.mark.parametrize("changes", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_unusable_pins_count_as_missing(changes: dict[str, object]) -> None:
    world = started()
    assert pinned_run(with_pins(world, **changes).run) is None


@pytest.mark.parametrize(
    ("prefix", "usable"),
    [
        (names.run_name_prefix("team-a", "flash-1-source") + "uid/adapter/", True),
        (names.run_name_prefix("another", "flash-1-source") + "uid/adapter/", False),
        (names.run_name_prefix("team-a", "flash-1-source") + "../../x/", False),
    ],
)
def test_an_adapter_of_another_namespace_is_never_used(prefix: str, usable: bool) -> None:
    status = started().run.status
    run = make_run({"train": {"init_from_adapter": "flash-1-source"}}, status)
    adapter = {"init_from_adapter_prefix": prefix, "init_from_adapter_uid": "uid"}
    resolved = pinned_run(with_pins(World(run=run), **adapter).run)
    assert (resolved is not None) is usable


def test_the_limits_of_a_job_are_those_of_its_beginning() -> None:
    trainer = PLATFORM.trainer
    changed = PLATFORM.model_copy(update={"trainer": trainer.model_copy(update={"retries": 9})})
    before = JobLimits(trainer.wall_clock_seconds, trainer.retries)
    assert job_limits(started().run, changed) == before
    assert job_limits(make_run(), changed) == JobLimits(trainer.wall_clock_seconds, 9)


def test_the_platform_decides_image_and_addresses() -> None:
    resolved = started().pinned
    assert resolved is not None
    trainer = PLATFORM.trainer.model_copy(update={"image": "registry/new@sha256:2"})
    assert with_trainer_settings(resolved, trainer).image == "registry/new@sha256:2"
