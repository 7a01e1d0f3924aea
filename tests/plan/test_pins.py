"""Pins: the resolved spec follows from the spec and from what the status has pinned."""

from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings

from flashrun.api import names
from flashrun.api.reasons import TERMINAL
from flashrun.api.resource import FlashRunSpec, FlashRunStatus, ResolvedStatus
from flashrun.cli.config.compose import compose
from flashrun.plan import job_start
from flashrun.plan.job_start import pin_run
from flashrun.plan.pins import (
    JobLimits,
    digest_of,
    job_limits,
    pinned_run,
    spec_text,
    train_texts,
    with_trainer_settings,
)
from tests.api.strategies import configs, toml_file
from tests.plan import worlds
from tests.plan.worlds import DIGEST, PLATFORM, World, make_run, running


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


def test_an_evaluation_is_pinned_with_its_defaults() -> None:
    run = make_run({"eval": {"metric": "é" * 64}})
    resolved = pinned_run(World(run=run).settled().run)

    assert resolved is not None
    assert resolved.eval is not None
    assert (resolved.eval.metric, resolved.eval.max_examples) == ("é" * 64, 64)


def test_a_run_that_began_before_there_was_evaluation_keeps_its_spec_to_the_byte() -> None:
    resolved = pinned_run(with_pins(started(), eval={}).run)

    assert resolved is not None
    assert resolved.eval is None
    assert '"eval"' not in spec_text(resolved)


def test_prompts_have_the_day_on_which_the_run_was_created_in_every_attempt() -> None:
    evening = datetime(2026, 2, 28, 23, 30, tzinfo=timezone(timedelta(hours=-1)))
    world = World(run=make_run().replace(created=evening)).settled()
    assert pinned(world).prompt_date == date(2026, 3, 1)
    resolved = pinned_run(world.run)
    assert resolved is not None
    assert '"prompt_date": "2026-03-01"' in spec_text(resolved)


def test_the_spec_of_a_run_without_a_day_can_be_read_by_trainers_that_know_none() -> None:
    world = with_pins(started(), prompt_date=None)
    resolved = pinned_run(world.run)
    assert resolved is not None
    assert "prompt_date" not in spec_text(resolved)


UNUSABLE = {
    "a digest that is not one": {"environment_digest": "latest"},
    "a model source that nobody knows": {"model_source": "floppy"},
    "a training value that is not JSON": {"train": {"epochs": "three"}},
    "an evaluation of nothing": {"eval": {"split": "null"}},
    "no nodes": {"nodes": 0},
    "no GPUs": {"gpus": 0},
    "no training values": {"train": {}},
    "no model": {"model_source": "", "model_revision": ""},
    "a digest that is a path": {"environment_digest": "../" * 21 + "x"},
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


@given(tables=configs)
@settings(max_examples=150, deadline=None)
def test_the_pins_of_any_config_give_back_the_spec_that_the_trainer_reads(
    tables: dict[str, Any],
) -> None:
    spec = FlashRunSpec.from_config(compose([toml_file(tables)]).config)
    run = worlds.make_run().model_copy(update={"spec": spec})
    ref = spec.train.init_from_adapter
    source = worlds.source_adapter(base_model=spec.model)
    if ref is not None:
        name = names.parse_ref(ref).run
        pinned = source.pinned.replace(ref=ref, prefix=f"runs/{run.namespace}/{name}/u/adapter/")
        source = replace(source, pinned=pinned)
    world = World(run).stored(adapter_source=source if ref is not None else None)
    decision = world.decide()
    if decision.status.phase in TERMINAL or not decision.apply:
        return
    after = world.act(decision)

    resolved = after.pinned
    assert resolved is not None
    [text] = after.observed.config_map["data"].values()  # type: ignore[index]
    assert spec_text(resolved) == text
    assert resolved == pin_run(world.context(), resolved.scale)


def test_a_job_is_the_same_by_its_pins_whatever_the_platform_has_become() -> None:
    world = running()
    trainer = world.platform.trainer.model_copy(
        update={"image": "other@sha256:2", "hub_endpoint": "https://hub.example", "retries": 9}
        | {"wall_clock_seconds": 60, "upload_timeout_seconds": 20}
    )
    changed = replace(world, platform=world.platform.model_copy(update={"trainer": trainer}))
    [job] = world.observed.jobs
    [again] = changed.seeing(jobs=(), pods=()).decide().apply

    assert again["spec"] == job["spec"]
    assert changed.decide().apply == ()
    assert changed.decide().patch == ()


def repinned(world: World, **changes: Any) -> World:
    """The world with other pins in the status."""
    resolved = world.run.status.resolved
    assert resolved is not None
    status = world.run.status.replace(resolved=resolved.model_copy(update=changes))
    return replace(world, run=world.run.model_copy(update={"status": status}))


@pytest.mark.parametrize(
    "prefix",
    ["", "runs/", "runs/team-a/", "runs/team-b/flash-1-aa/u/adapter/", "models/m/r/",
     "runs/team-a/flash-1-aaa/u/adapter/", "runs/team-a/flash-1-aa/../../team-b/x/"],
)  # fmt: skip
def test_an_adapter_counts_only_below_the_run_that_the_spec_names(prefix: str) -> None:
    run = make_run({"train": {"init_from_adapter": "flash-1-aa/step-20"}})
    world = World(run).stored(adapter_source=worlds.source_adapter()).settled()

    assert world.pinned is not None
    assert repinned(world, init_from_adapter_prefix=prefix).pinned is None


def test_a_run_without_an_adapter_gets_none_from_its_pins() -> None:
    world = repinned(running(), init_from_adapter_prefix="runs/team-b/r/u/")

    assert world.pinned is not None
    assert world.pinned.init_from_adapter is None
    grant = job_start.access_grant(world.seeing(has_access=False).context(), world.pinned)
    assert grant is not None
    assert "team-b" not in str(grant.policy)


def test_a_status_of_an_earlier_version_gives_its_choices_and_a_new_job() -> None:
    """It pinned neither the Job's uid nor the platform's addresses; its Job had another name."""
    world = running()
    pins_then = ("job", "job_uid", "avoid_nodes", "spec_digest", "hub_endpoint", "pip_index_url",
                 "upload_timeout_seconds")  # fmt: skip
    unset = {key: ResolvedStatus.model_fields[key].get_default() for key in pins_then}
    [job] = world.observed.jobs
    old = {**job, "metadata": {**job["metadata"], "name": worlds.NAME}}
    newer = worlds.EnvironmentPointer(digest="e" * 64, size=1, pushed=worlds.NOW)
    before = repinned(world, **unset).seeing(jobs=(old,), config_map=None).stored(environment=newer)
    removal = before.decide()

    assert [(item.kind, item.name) for item in removal.delete] == [("Job", worlds.NAME)]
    assert removal.apply == ()
    still_ending = before.act(removal)
    assert still_ending.decide().apply == ()
    after = still_ending.seeing(pods=()).decide()
    assert [item["kind"] for item in after.apply] == ["ConfigMap", "Job"]
    assert after.status.resolved is not None
    assert after.status.resolved.environment_digest == worlds.DIGEST
    assert after.status.resolved.upload_timeout_seconds == 300


def test_a_lost_status_is_pinned_again_after_its_jobs_have_gone() -> None:
    world = running()
    lost = replace(world, run=world.run.model_copy(update={"status": FlashRunStatus()}))
    removal = lost.decide()

    assert len(removal.delete) == 1
    assert removal.apply == ()
    again = lost.act(removal).seeing(pods=()).settled()
    assert len(again.observed.jobs) == 1
    assert again.run.status.resolved is not None
    assert again.run.status.resolved.job_uid
