"""Every run leaves records in storage, however it ended, and commands know it by them.

The API server and storage are real; the FlashRuns and their pods are deleted before anybody asks.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit, Termination
from flashrun.api.reasons import Phase, Reason
from flashrun.api.records import RunIdentity
from flashrun.cli.cluster import deleted_runs, run_logs
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.commands.rerun import compose_changes
from flashrun.cli.report.report_data import read_report
from flashrun.controller.run_copies import RunCopies
from flashrun.plan.endings import ending_of_deleted
from flashrun.plan.gpu_time import GpuTime
from flashrun.store import Store
from flashrun.store_errors import KeyNotFound, Unavailable
from tests.cli.shell import Shell, published
from tests.controller.stage import Kubelet, Object, World
from tests.plan.worlds import running
from tests.servers import kubectl

pytestmark = pytest.mark.api
STEM = "flash-1-0a1b2c3d"
LOST = Termination(reason="ModelUnavailable", message="The hub answered 404.", hint="Check model.")


async def run_ends_in_an_init_container(world: World, name: str) -> None:
    """The trainer never starts: no claim, no heartbeat, no result."""
    await world.submit(name)
    await world.phase(name, "Starting")
    pod = await world.pod(name)
    key = names.pod_log_key((await world.run(name)).storage_prefix, pod["metadata"]["name"])
    world.store.put_bytes(key, b"[model] the hub answered 404\n")
    ended = {"exitCode": Exit.MODEL_UNAVAILABLE, "reason": "Error"}
    ended["message"] = LOST.model_dump_json()
    status: Object = {
        "phase": "Failed",
        "initContainerStatuses": [
            {
                "name": "model",
                "ready": False,
                "restartCount": 0,
                "image": "i",
                "imageID": "",
                "state": {"terminated": ended},
            }
        ],
    }
    await world.cluster.patch_status("Pod", world.namespace, pod["metadata"]["name"], status)
    await world.phase(name, "Failed")


async def spec_is_refused(world: World, name: str) -> None:
    await world.submit(name, model="nobody/knows-it")
    await world.phase(name, "Failed")


async def image_has_no_name(world: World, name: str) -> None:
    await world.submit(name)
    await world.phase(name, "Starting")
    await Kubelet(world.cluster).waits(await world.pod(name), "InvalidImageName", "what is this")
    await world.phase(name, "Failed")


async def dataset_is_unusable(world: World, name: str) -> None:
    await world.submit(name)
    await world.phase(name, "Starting")
    trainer = await world.trainer(name)
    trainer.claim()
    key = names.log_key(trainer.run.storage_prefix, 1)
    trainer.store.put_bytes(key, b"row 7 has no input\n")
    await trainer.end(Exit.DATA)
    await world.phase(name, "Failed")


async def run_is_cancelled_while_it_waits(world: World, name: str) -> None:
    await world.submit(name, environment={"id": "org/not-pushed"})
    await world.until(name, lambda run: run.status.pending)
    await world.control(name, cancel=True)
    await world.phase(name, "Cancelled")


async def run_is_deleted_while_it_waits(world: World, name: str) -> None:
    await world.submit(name, environment={"id": "org/not-pushed"})
    await world.until(name, lambda run: run.status.pending)


async def run_is_deleted_while_it_trains(world: World, name: str) -> None:
    await world.submit(name)
    await world.phase(name, "Starting")
    trainer = await world.trainer(name)
    trainer.claim()
    trainer.beat(3)
    await world.phase(name, "Running")


async def run_succeeds(world: World, name: str) -> None:
    await world.submit(name)
    await world.phase(name, "Starting")
    await (await world.trainer(name)).succeed()
    await world.phase(name, "Succeeded")


End = Callable[[World, str], Awaitable[None]]
ENDS: list[tuple[End, Phase, Reason, list[str]]] = [
    (run_ends_in_an_init_container, Phase.FAILED, Reason.MODEL_UNAVAILABLE,
     ["[model] the hub answered 404"]),
    (spec_is_refused, Phase.FAILED, Reason.SPEC_INVALID, []),
    (image_has_no_name, Phase.FAILED, Reason.IMAGE_PULL_FAILED, []),
    (dataset_is_unusable, Phase.FAILED, Reason.DATA_INVALID, ["row 7 has no input"]),
    (run_is_cancelled_while_it_waits, Phase.CANCELLED, Reason.CANCELLED, []),
    (run_is_deleted_while_it_waits, Phase.CANCELLED, Reason.DELETED, []),
    (run_is_deleted_while_it_trains, Phase.CANCELLED, Reason.DELETED, []),
    (run_succeeds, Phase.SUCCEEDED, Reason.TRAINED, []),
]  # fmt: skip


async def delete_all(world: World) -> None:
    """Delete every FlashRun; the operator's watch sees each deletion."""
    for manifest in await world.cluster.list(names.KIND, world.namespace):
        await world.cluster.delete(names.KIND, world.namespace, manifest["metadata"]["name"])
        await asyncio.to_thread(world.reconciler.record_deletion, manifest)
    assert await world.cluster.list(names.KIND, world.namespace) == []


async def stored_log(session: ClusterSession, name: str) -> list[str]:
    try:
        return await run_logs.read_newest_log(session, await deleted_runs.find_run(session, name))
    except KeyNotFound:
        return []


async def test_every_kind_of_end_leaves_records_that_commands_read(
    world: World, installed: Path, tmp_path: Path
):
    runs = {f"{STEM}-{number}": row for number, row in enumerate(ENDS)}
    await asyncio.gather(*(row[0](world, name) for name, row in runs.items()))
    await delete_all(world)
    flash = people(world, installed, tmp_path)

    session = ClusterSession(world.cluster, world.namespace)
    try:
        for name, (end, phase, reason, log) in runs.items():
            run = await deleted_runs.find_run(session, name)
            ready = run.status.condition("Ready")
            assert (run.status.phase, ready.reason) == (phase, reason), end.__name__
            assert (run.status.adapter is not None) is (end is run_succeeds)
            assert await stored_log(session, name) == log, end.__name__
            assert compose_changes(run, (), ()).config.algorithm == run.spec.algorithm
            assert (await read_report(session, name)).deleted
    finally:
        await session.close()

    await asyncio.to_thread(ask_about_the_run_without_an_attempt, flash, *list(runs)[:2])


def people(world: World, installed: Path, folder: Path) -> Shell:
    """A shell of somebody in the namespace, with what the operator publishes there."""
    own = folder / "kubeconfig"
    own.write_text(installed.read_text())
    kubectl(own, "config", "set-context", "--current", "--namespace", world.namespace)
    kubectl(own, "apply", "-f", "-", stdin=json.dumps(published(world.store)))
    return Shell(folder, own)


def ask_about_the_run_without_an_attempt(flash: Shell, name: str, refused: str) -> None:
    log = flash("log", name)
    assert (log.returncode, log.stdout) == (0, "[model] the hub answered 404\n"), log.stderr
    status = flash("status", name)
    assert "The hub answered 404. (ModelUnavailable)" in status.stdout
    assert "was deleted" in status.stderr
    rerun = flash("rerun", name, "--dry-run", "-o", "json")
    assert f'"run {name}"' in rerun.stdout, rerun.stderr
    assert "model\t" in flash("diff", name, refused).stdout
    report = flash("report", name)
    assert report.returncode == 0, report.stderr
    assert "The hub answered 404." in (flash.folder / f"{name}.html").read_text()
    none = flash("log", refused)
    assert none.returncode == 3
    assert "has no log; it ended with SpecInvalid" in none.stderr


# --- the copy itself ------------------------------------------------------------------------------


def test_a_copy_is_closed_once_and_a_forged_one_stops_nothing(store: Store) -> None:
    run = running().run
    copies, key = RunCopies(store), names.run_record_key(run.storage_prefix)
    identity = RunIdentity(namespace=run.namespace, name=run.name, uid=run.uid)
    ending = ending_of_deleted(identity, datetime.now(UTC), GpuTime())
    store.delete([key])
    copies.close(ending)
    assert not store.exists(key)  # an earlier version wrote none

    copies.write(run, run.status)
    copies.close(ending)
    closed = store.get_bytes(key)
    assert b'"Cancelled"' in closed
    copies.close(ending.replace(message="again"))
    assert store.get_bytes(key) == closed

    for forged in (b"{}", b"not JSON", b'{"run": 1}', closed.replace(b"Cancelled", b"Nothing")):
        store.put_bytes(key, forged)
        copies.close(ending)
        assert store.get_bytes(key) == forged


def test_a_copy_that_names_another_run_changes_nothing_of_that_run(store: Store) -> None:
    """The operator can write below the prefixes of all teams."""
    mine, copies = running().run, RunCopies(store)
    theirs = mine.replace(namespace="team-beside", name="flash-9-theirs", uid="uid-theirs")
    copies.write(theirs, theirs.status)
    key = names.run_record_key(mine.storage_prefix)
    their_key = names.run_record_key(theirs.storage_prefix)
    before = store.get_bytes(their_key)
    store.put_bytes(key, before.replace(b'"Running"', b'"Starting"'))
    identity = RunIdentity(namespace=mine.namespace, name=mine.name, uid=mine.uid)
    copies.close(ending_of_deleted(identity, datetime.now(UTC), GpuTime()))
    assert store.get_bytes(their_key) == before


async def test_a_run_begins_when_its_copy_is_written(world: World, monkeypatch: pytest.MonkeyPatch):
    await world.submit(STEM)
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise Unavailable("storage is full")

        patch.setattr(RunCopies, "write", refuse)
        run = await world.until(STEM, lambda run: run.status.pending)
        assert "storage is full" in run.status.pending.message
        assert await world.jobs(STEM) == []
    await world.phase(STEM, "Starting")
