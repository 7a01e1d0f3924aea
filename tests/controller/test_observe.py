"""What is read of a run: only what is complete, valid and its own counts."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.records import Manifest, RunIdentity
from tests.controller.stage import World, now

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"


async def corrupt_manifest(trainer: Any) -> None:
    trainer.store.put_bytes(trainer.commit(5) + names.MANIFEST, b"{}")


async def truncated_file(trainer: Any) -> None:
    trainer.store.put_bytes(trainer.commit(5) + "adapter/adapter_model.safetensors", b"w")


async def no_manifest(trainer: Any) -> None:
    prefix = names.step_prefix(trainer.run.storage_prefix, 1, 5)
    trainer.store.put_bytes(prefix + "adapter/adapter_model.safetensors", b"weights")


async def manifest_of_another_step(trainer: Any) -> None:
    prefix = trainer.commit(7)
    manifest = trainer.store.get_bytes(prefix + names.MANIFEST)
    other = names.step_prefix(trainer.run.storage_prefix, 1, 5)
    data = trainer.store.get_bytes(prefix + "adapter/adapter_model.safetensors")
    trainer.store.put_bytes(other + "adapter/adapter_model.safetensors", data)
    trainer.store.put_bytes(other + names.MANIFEST, manifest)


@pytest.mark.parametrize(
    ("spoil", "left"),
    [
        (corrupt_manifest, []),
        (truncated_file, []),
        (no_manifest, []),
        (manifest_of_another_step, [7]),
    ],
)
async def test_a_checkpoint_that_is_not_whole_does_not_exist(
    world: World, spoil: Callable[[Any], Any], left: list[int]
):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    await spoil(trainer)
    trainer.commit(9)
    trainer.beat(9, commits=2)
    run = await world.until(RUN, lambda run: run.status.checkpoints)
    assert [checkpoint.step for checkpoint in run.status.checkpoints] == [9, *left]


async def test_storage_is_not_asked_about_a_run_of_a_moment_ago_alone(world: World):
    """A run that a clock behind has not seen created yet may be of any age."""
    run = await world.submit(RUN)
    observer, now = world.reconciler._observer, datetime.now(UTC)
    for began, age, new in (
        (-3600, 1, True), (-3600, 50, True), (-3600, 70, False), (-3600, -3, True),
        (-3600, -50, False), (-20, 50, False), (-20, 3, True),
    ):  # fmt: skip
        observer._began = now + timedelta(seconds=began)
        created = run.replace(created=now - timedelta(seconds=age))
        assert observer._is_new(created) is new, (began, age)


async def test_of_a_step_that_two_attempts_saved_the_newer_one_counts(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    for trainer.attempt in (1, 2):
        trainer.claim()
        trainer.commit(5)
    run = await world.until(RUN, lambda run: run.status.checkpoints)
    assert run.status.checkpoint_count == 1


async def test_an_adapter_to_start_from_is_pinned_also_when_its_run_is_gone(world: World):
    source = await world.submit("flash-1-source")
    await world.phase("flash-1-source", "Starting")
    await (await world.trainer("flash-1-source")).succeed()
    await world.phase("flash-1-source", "Succeeded")
    await world.cluster.delete(names.KIND, world.namespace, "flash-1-source")
    for number, (ref, prefix) in enumerate(
        [
            ("flash-1-source", names.adapter_prefix(source.storage_prefix)),
            ("flash-1-source/step-10", names.step_prefix(source.storage_prefix, 1, 10)),
        ]
    ):
        name = f"flash-2-{number}"
        await world.submit(name, train={"epochs": 1, "initFromAdapter": ref})
        run = await world.phase(name, "Starting")
        assert run.status.resolved is not None
        assert run.status.resolved.init_from_adapter_uid == source.uid
        assert run.status.resolved.init_from_adapter_prefix == prefix
        trainer = await world.trainer(name)
        assert trainer.store.exists(prefix + names.MANIFEST)
    await world.submit("flash-2-x", train={"epochs": 1, "initFromAdapter": "flash-0-gone"})
    run = await world.until("flash-2-x", lambda run: run.status.pending)
    assert run.status.pending.reason == "AdapterNotFound"


async def test_a_run_of_a_chain_that_was_applied_at_once_waits_for_the_adapter_of_the_one_before(
    world: World,
):
    first = await world.submit("sums-sft-1a2b3c4d")
    train = {"epochs": 1, "initFromAdapter": first.name}
    await world.submit("sums-rl-5e6f7a8b", train=train)
    run = await world.until("sums-rl-5e6f7a8b", lambda run: run.status.pending)
    assert (run.status.phase, run.status.pending.reason) == ("Pending", "AdapterNotFound")
    assert await world.pass_over(run.name) is not None  # it is looked at again by itself
    await world.phase(first.name, "Starting")
    await (await world.trainer(first.name)).succeed()
    await world.phase(first.name, "Succeeded")
    run = await world.phase(run.name, "Starting")
    assert run.status.resolved.init_from_adapter_uid == first.uid


async def test_what_is_not_committed_or_not_of_this_namespace_is_no_adapter(world: World):
    source = await world.submit("flash-1-source")
    unfinished = names.step_prefix(source.storage_prefix, 1, 7)
    world.store.put_bytes(f"{unfinished}adapter/adapter_model.safetensors", b"weights")
    identity = RunIdentity(namespace="elsewhere", name="flash-1-theirs", uid="uid")
    theirs = names.adapter_prefix(names.run_prefix("elsewhere", "flash-1-theirs", "uid"))
    manifest = Manifest(kind="adapter", run=identity, created=now(), files=())
    world.store.put_json(theirs + names.MANIFEST, manifest)
    for number, ref in enumerate(("flash-1-source", "flash-1-source/step-7", "flash-1-theirs")):
        await world.submit(f"flash-2-{number}", train={"epochs": 1, "initFromAdapter": ref})
        run = await world.until(f"flash-2-{number}", lambda run: run.status.pending)
        assert run.status.pending.reason == "AdapterNotFound"
