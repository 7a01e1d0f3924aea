"""One team's hostile input, fault or accident costs another team nothing.

One operator process serves two teams. Each test does something in the namespace of the first one,
with the rights and the storage credentials of that team, and asks the same oracle about the second
(``tests.controller.other_tenant``). What the hostile input does to its own run is tested in detail
elsewhere. Namespaces that cannot be served are in ``test_served_namespaces``, a store that hangs
is in ``test_outages``.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.platform import EnvironmentSettings
from flashrun.api.records import (
    Ending,
    EnvironmentPointer,
    Heartbeat,
    Progress,
    RunIdentity,
    StorageAccess,
)
from flashrun.cluster import Cluster
from flashrun.store import Store
from flashrun.store_errors import StorageForbidden
from tests.controller.conftest import Operators
from tests.controller.large_objects import post_large_objects
from tests.controller.other_tenant import OtherTenant, least_allocated, stretched
from tests.controller.stage import (
    ENVIRONMENT,
    Kubelet,
    Trainer,
    World,
    now,
    platform,
    push_environment,
    wait_for_phase,
)
from tests.controller.storage_gate import StorageGate, storage_gate
from tests.controller.test_foreign_environments import push
from tests.controller.test_hostile_records import heartbeat, put_encoded
from tests.controller.test_reconcile import secret
from tests.controller.test_truth import put_config_map
from tests.servers import Minio, kubectl

pytestmark = pytest.mark.api
HOSTILE, OTHER = "team-hostile", "team-beside"
SKEWED = """
import datetime as real, sys, flashrun.controller.__main__ as program
class Ahead(real.datetime):
    @classmethod
    def now(cls, tz=None):
        return real.datetime.now(tz) + real.timedelta(minutes=31)
for name, module in list(sys.modules.items()):
    if name.startswith("flashrun.") and getattr(module, "datetime", None) is real.datetime:
        module.datetime = Ahead
sys.exit(program.main())
"""
"""An operator whose wall clock is 31 minutes ahead."""
_numbers = count(1)


@pytest.fixture(scope="module")
def gate(minio: Minio) -> Iterator[StorageGate]:
    with storage_gate(minio.endpoint) as opened:
        yield opened


class Stage:
    """Both teams and the operator that serves them."""

    def __init__(self, kubeconfig: Path, store: Store, folder: Path) -> None:
        self.kubeconfig, self.store = kubeconfig, store
        teams = (HOSTILE, OTHER)
        for name in teams:
            kubectl(kubeconfig, "create", "namespace", name)
        push_environment(store)
        owners = EnvironmentSettings(owners={ENVIRONMENT.partition("/")[0]: teams})
        self.platform = platform(HOSTILE, store.access).replace(
            namespaces=teams, environments=owners
        )
        self.operators = Operators(folder, kubeconfig, self)
        self.start()

    def start(self, **how: Any) -> None:
        self.process = self.operators.start(**how)
        seconds = stretched(30)
        self.operators.wait(lambda: self.operators.leads(self.process), seconds)
        self.operators.wait(lambda: self.operators.ask(self.process, "/readyz")[0] == 200, seconds)

    def restart(self, **how: Any) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(stretched(20)) == 0
        self.start(**how)

    def world(self, cluster: Cluster, team: str) -> World:
        platform = self.platform.replace(namespaces=(team,))
        return World(cluster, self.store, platform, self.kubeconfig)


@pytest.fixture(scope="module")
def stage(
    installed: Path, gate: StorageGate, minio: Minio, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    access = minio.store("beside").access.replace(endpoint=gate.endpoint)
    made = Stage(installed, Store(access), tmp_path_factory.mktemp("beside"))
    yield made
    made.operators.stop()
    kubectl(installed, "delete", "namespace", HOSTILE, OTHER, "--wait=false")


@pytest.fixture
def hostile(stage: Stage, cluster: Cluster) -> World:
    return stage.world(cluster, HOSTILE)


@pytest_asyncio.fixture
async def other(stage: Stage, cluster: Cluster) -> AsyncIterator[OtherTenant]:
    """The other team, before anything hostile happens and after."""
    tenant = OtherTenant(stage.world(cluster, OTHER), stage.operators, stage.process)
    yield tenant
    await OtherTenant.is_served(tenant)


async def hostile_run(hostile: World, **changes: Any) -> Trainer:
    """A run of the hostile team that trains."""
    name = f"flash-{next(_numbers)}-hostile"
    await hostile.submit(name, **changes)
    await wait_for_phase(hostile, name, "Starting", stretched(10))
    return await hostile.trainer(name)


async def ignored(hostile: World, trainer: Trainer) -> str:
    """Wait until the operator says in the hostile run that it ignores a record; return that."""
    for _ in range(int(stretched(150))):
        condition = (await hostile.run(trainer.run.name)).status.condition("CheckpointsSynced")
        if condition is not None and condition.reason in ("RecordRefused", "TooManyFiles"):
            return condition.message
        await asyncio.sleep(0.1)
    raise AssertionError("no record is ignored")


async def test_a_forged_spec_gets_no_other_credentials(hostile: World, other: OtherTenant):
    theirs = f"runs/{OTHER}/private/uid/adapter/weights"
    hostile.store.put_bytes(theirs, b"theirs")
    trainer = await hostile_run(hostile)
    name, uid = trainer.run.name, trainer.run.uid
    adapter = {"ref": "flash-0-x", "uid": "u", "prefix": ""}
    await put_config_map(hostile, name, init_from_adapter=adapter, image="tenant.example/own")
    key = names.storage_secret_name(name, uid)
    await hostile.cluster.delete("Secret", HOSTILE, key)
    await hostile.cluster.delete("Job", HOSTILE, names.job_name(name, uid, 0))
    for _ in range(100):
        if await hostile.cluster.metadata("Secret", HOSTILE, key) is not None:
            break
        await asyncio.sleep(0.1)
    text = await hostile.cluster.secret_value(HOSTILE, key, names.ACCESS_KEY)
    signed = Store(StorageAccess.model_validate_json(text))
    assert signed.access != trainer.store.access
    for use in (lambda: signed.get_bytes(theirs), lambda: list(signed.list("runs/"))):
        with pytest.raises(StorageForbidden):
            use()


def put_record(**changes: Any) -> Callable[[Trainer], None]:
    """Return what writes a heartbeat with other fields."""

    def put(trainer: Trainer) -> None:
        key = names.heartbeat_key(trainer.run.uid)
        trainer.store.put_bytes(key, heartbeat(trainer, **changes))

    return put


def put_wrong_encoding(trainer: Trainer) -> None:
    put_encoded(trainer.store, names.heartbeat_key(trainer.run.uid), b"not gzip")


HEARTBEATS: dict[str, Callable[[Trainer], None]] = {
    "no zone": put_record(updated="2026-11-01T10:00:00"),
    "ten years ahead": put_record(updated=(now() + timedelta(3650)).isoformat()),
    "a huge step": put_record(progress={"step": 10**30, "total_steps": 9}),
    "a long metric": put_record(
        progress={"step": 3, "total_steps": 9, "metrics": {"m" * 300_000: 1.0}}
    ),
    "an encoding that does not fit": put_wrong_encoding,
}


async def test_hostile_heartbeats(hostile: World, other: OtherTenant):
    trainers = {case: await hostile_run(hostile) for case in HEARTBEATS}
    for trainer in trainers.values():
        trainer.beat(1)
    for case, trainer in trainers.items():
        await wait_for_phase(hostile, trainer.run.name, "Running", stretched(10))
        HEARTBEATS[case](trainer)
    for case, trainer in trainers.items():
        assert "heartbeat is ignored" in await ignored(hostile, trainer), case


async def test_twelve_manifests_of_8_megabytes(hostile: World, other: OtherTenant):
    trainer = await hostile_run(hostile)
    data = b"[" + b"0," * (4 * 1024 * 1024)
    for step in range(1, 13):
        prefix = names.step_prefix(trainer.run.storage_prefix, 1, step)
        trainer.store.put_bytes(prefix + names.MANIFEST, data)
    trainer.beat(1, commits=12)
    assert "manifest.json is longer than" in await ignored(hostile, trainer)


async def test_an_environment_of_the_other_team_is_not_replaced(hostile: World, other: OtherTenant):
    theirs = f"{OTHER}/env"
    pushed = push(hostile.store, theirs, "their code")
    text = await hostile.cluster.secret_value(HOSTILE, names.STORAGE_USER_SECRET, names.ACCESS_KEY)
    people = Store(StorageAccess.model_validate_json(text))
    with pytest.raises(StorageForbidden):
        push(people, theirs, "my code")
    pointer = hostile.store.get_json(names.environment_latest_key(theirs), EnvironmentPointer)
    assert pointer.digest == pushed


POISON: dict[str, dict[str, Any]] = {
    "attempt-7/claim.json": {"attempt": 10**30, "pod": "p", "pod_uid": "u"},
    "attempt-²/claim.json": {},
    "attempt-1/step-5/manifest.json": {"kind": "checkpoint", "step": 10**30, "files": []},
    "result.json": {"attempt": 1, "exit_code": 10**30, "finished": "9999-12-31T23:59:59-05:00"},
}


async def test_poison_records(hostile: World, other: OtherTenant):
    trainer = await hostile_run(hostile)
    identity, moment = trainer.identity.model_dump(), now().isoformat()
    for path, fields in POISON.items():
        record = {"run": identity, "created": moment, "finished": moment, **fields}
        key = trainer.run.storage_prefix + path
        trainer.store.put_bytes(key, json.dumps(record).encode())
    await ignored(hostile, trainer)
    await trainer.end(0)
    await wait_for_phase(hostile, trainer.run.name, "Failed", stretched(20))


async def fail_without_a_result(hostile: World) -> tuple[str, str]:
    trainer = await hostile_run(hostile)
    await trainer.end(Exit.DATA)
    await wait_for_phase(hostile, trainer.run.name, "Failed", stretched(20))
    return trainer.run.name, "Failed"


async def succeed(hostile: World) -> tuple[str, str]:
    trainer = await hostile_run(hostile)
    await trainer.succeed()
    await wait_for_phase(hostile, trainer.run.name, "Succeeded", stretched(20))
    return trainer.run.name, "Succeeded"


async def cancel(hostile: World) -> tuple[str, str]:
    trainer = await hostile_run(hostile)
    await hostile.control(trainer.run.name, cancel=True)
    await wait_for_phase(hostile, trainer.run.name, "Cancelled", stretched(20))
    return await restored_from_before(hostile, trainer, "Cancelled")


async def delete(hostile: World) -> tuple[str, str]:
    trainer = await hostile_run(hostile)
    await hostile.cluster.delete(names.KIND, HOSTILE, trainer.run.name)
    return await restored_from_before(hostile, trainer, "Deleted")


async def restored_from_before(hostile: World, ended: Trainer, reason: str) -> tuple[str, str]:
    """Bring a run back from before it was cancelled or deleted; return its name and phase.

    The API server takes neither back: it is another run that trains, with the record of the end.
    """
    key = names.ending_key(HOSTILE, ended.run.name, ended.run.uid)
    for _ in range(int(stretched(100))):
        if hostile.store.exists(key):
            break
        await asyncio.sleep(0.1)
    ending = hostile.store.get_json(key, Ending)
    assert (ending.phase, ending.reason) == ("Cancelled", reason)
    trainer = await hostile_run(hostile)
    key = names.ending_key(HOSTILE, trainer.run.name, trainer.run.uid)
    hostile.store.create_json(key, ending.replace(run=trainer.identity))
    return trainer.run.name, "Cancelled"


@pytest.mark.parametrize("end", [fail_without_a_result, succeed, cancel, delete])
async def test_a_run_of_a_restored_backup(
    hostile: World, other: OtherTenant, end: Callable[[World], Awaitable[tuple[str, str]]]
):
    name, phase = await end(hostile)
    uid = (await hostile.run(name)).uid
    for number in await hostile.jobs(name):
        await hostile.cluster.delete("Job", HOSTILE, names.job_name(name, uid, number))
    labels = {names.RUN_UID_LABEL: uid}
    for _ in range(int(stretched(200))):
        if not await hostile.cluster.list("Pod", HOSTILE, labels):
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)  # a pass that has read the old status must not write it again
    ended = await hostile.cluster.get(names.KIND, HOSTILE, name)
    nothing = dict.fromkeys(ended["status"])
    await hostile.cluster.patch_status(names.KIND, HOSTILE, name, nothing)
    await wait_for_phase(hostile, name, phase, stretched(10))
    for _ in range(int(stretched(100))):
        if not (left := await hostile.jobs(name)):
            break
        await asyncio.sleep(0.1)
    assert left == []


async def test_a_result_that_comes_early(hostile: World, other: OtherTenant):
    trainer = await hostile_run(hostile)
    trainer.claim()
    trainer.publish()
    trainer.beat(3)
    for _ in range(int(stretched(100))):
        progress = (await hostile.run(trainer.run.name)).status.progress
        if progress and progress.step == 3:
            break
        await asyncio.sleep(0.1)
    trainer.conclude(0)
    for _ in range(int(stretched(100))):
        status = (await hostile.run(trainer.run.name)).status
        if status.result_time:
            break
        await asyncio.sleep(0.1)
    assert (status.phase, bool(status.result_time)) == ("Running", True)


async def test_names_that_collide(hostile: World, other: OtherTenant):
    for name in ("twin", "twin-1", "x" * names.RUN_NAME_LIMIT):
        await hostile.submit(name)
        await wait_for_phase(hostile, name, "Starting", stretched(10))
    large = await hostile.trainer("twin")
    await large.end(65)
    await (await hostile.trainer("twin-1")).succeed()
    await wait_for_phase(hostile, "twin-1", "Succeeded", stretched(10))
    for _ in range(int(stretched(100))):
        resolved = (await hostile.run("twin")).status.resolved
        if resolved is not None and resolved.job == 1:
            break
        await asyncio.sleep(0.1)
    await (await hostile.trainer("twin", job=1, attempt=2)).succeed()
    await wait_for_phase(hostile, "twin", "Succeeded", stretched(10))


async def test_a_source_secret_that_is_deleted(hostile: World, other: OtherTenant):
    await hostile.cluster.create(secret(HOSTILE, "keys", SERVICE_API_KEY="value"))
    listed = {"id": ENVIRONMENT, "secrets": ["SERVICE_API_KEY"]}
    trainer = await hostile_run(hostile, environment=listed, secretRefs=[{"name": "keys"}])
    for key in ("keys", names.secrets_name(trainer.run.name, trainer.run.uid)):
        await hostile.cluster.delete("Secret", HOSTILE, key)
    trainer.beat(5)
    await wait_for_phase(hostile, trainer.run.name, "Running", stretched(10))


async def test_a_store_that_issues_no_credentials(
    hostile: World, other: OtherTenant, gate: StorageGate
):
    """A run that trains finishes meanwhile; a new one starts when credentials are issued again."""
    trainer, theirs = await hostile_run(hostile), await other.start_run()
    gate.sts = False
    try:
        key = names.storage_secret_name(trainer.run.name, trainer.run.uid)
        await hostile.cluster.delete("Secret", HOSTILE, key)
        for step in range(100):
            trainer.beat(step)
            if gate.refused:
                break
            await asyncio.sleep(0.1)
        assert gate.refused
        key = names.storage_secret_name(theirs.run.name, theirs.run.uid)
        due = {"metadata": {"annotations": {names.EXPIRES_ANNOTATION: "2026-01-01T00:00:00Z"}}}
        await other.world.cluster.patch("Secret", OTHER, key, due)
        theirs.beat(7)
        for _ in range(int(stretched(100))):
            status = (await other.world.run(theirs.run.name)).status
            access = status.condition("StorageAccess")
            seen = (access and access.status, status.progress and status.progress.step)
            if seen == ("False", 7):
                break
            await asyncio.sleep(0.1)
        assert seen == ("False", 7)
        await other.finish(theirs)
    finally:
        gate.sts = True
    await other.is_served(seconds=30)


TOKEN = "hf_" + "a1B2c3D4e5F6g7H8i9J0"
SENTENCE = f"\x1b[31mno {TOKEN}"
REPORTS: dict[str, Callable[[Trainer], None]] = {
    "what it does": lambda trainer: trainer.beat(1, activity=SENTENCE),
    "a warning": lambda trainer: trainer.beat(1, warning=SENTENCE),
    "why metrics do not arrive": lambda trainer: trainer.beat(1, wandb=SENTENCE),
    "the name of a metric": lambda trainer: trainer.beat(
        1, progress=Progress(step=1, total_steps=9, metrics={TOKEN: 1.0})
    ),
    "a field that does not exist": put_record(**{TOKEN: SENTENCE}),
    "a field of another type": put_record(attempt=SENTENCE),
}


async def test_secrets_that_a_pod_reports(hostile: World, other: OtherTenant):
    """In heartbeats, and in the message of a container that ended."""
    trainers = {case: await hostile_run(hostile) for case in REPORTS}
    for case, trainer in trainers.items():
        REPORTS[case](trainer)
        await wait_for_phase(hostile, trainer.run.name, "Running", stretched(10))
    message = {"reason": "RewardFailed", "message": SENTENCE, "hint": TOKEN}
    for trainer in trainers.values():
        await trainer.end(70, message=json.dumps(message))
        await wait_for_phase(hostile, trainer.run.name, "Failed", stretched(20))
    shown = kubectl(hostile.kubeconfig, "get", "flashruns,events", "-n", HOSTILE, "-o", "json")
    assert "RewardFailed" in shown
    assert TOKEN not in shown
    assert TOKEN not in other.operators.logs()


async def test_switches_that_are_thrown_without_end(hostile: World, other: OtherTenant):
    """While it goes on, the other team is served."""
    runs = [await hostile_run(hostile) for _ in range(3)]
    busy = True

    async def toggle(trainer: Trainer) -> None:
        job = names.job_name(trainer.run.name, trainer.run.uid, 0)
        number = 0
        while busy:
            number += 1
            await hostile.control(trainer.run.name, suspend=bool(number % 2))
            patch = {"spec": {"suspend": not number % 2, "activeDeadlineSeconds": 1000 + number}}
            await hostile.cluster.patch("Job", HOSTILE, job, patch)

    tasks = [asyncio.create_task(toggle(trainer)) for trainer in runs]
    try:
        await other.is_served()
    finally:
        busy = False
        await asyncio.gather(*tasks)
    for trainer in runs:
        await hostile.control(trainer.run.name, suspend=False, cancel=True)


async def test_pods_and_jobs_with_the_labels_of_runs(hostile: World, other: OtherTenant):
    trainer = await hostile_run(hostile)
    owner = {
        "apiVersion": "batch/v1", "kind": "Job", "controller": True, "name": "x", "uid": "x",
    }  # fmt: skip
    labels = trainer.pod["metadata"]["labels"] | {names.JOB_NUMBER_LABEL: "x"}
    containers = [{"name": "trainer", "image": "tenant.example/own"}]
    for number in range(20):
        metadata = {"name": f"fake-{number}", "namespace": HOSTILE, "labels": labels}
        await hostile.cluster.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {**metadata, "ownerReferences": [owner]},
                "spec": {"containers": containers, "nodeName": f"node-{number}"},
            }
        )
    await asyncio.sleep(2)
    await trainer.succeed()


async def test_objects_as_large_as_the_api_server_takes(hostile: World, other: OtherTenant):
    trainer = await hostile_run(hostile)
    post_large_objects(hostile, trainer.pod["metadata"]["labels"])
    await asyncio.sleep(5)
    await trainer.succeed()
    await wait_for_phase(hostile, trainer.run.name, "Succeeded", stretched(20))
    other.check_operator()
    grown = await least_allocated(other.process) - other.memory
    assert grown < 6 * 1024 * 1024


async def test_large_secrets_that_are_copied(hostile: World, other: OtherTenant):
    """Each is read and sent through another connection, of which none keeps it."""
    await hostile.cluster.create(secret(HOSTILE, "large", SERVICE_API_KEY="x" * 1_000_000))
    listed = {"id": ENVIRONMENT, "secrets": ["SERVICE_API_KEY"]}
    await hostile_run(hostile)
    before = await least_allocated(other.process)
    for _ in range(6):
        await hostile_run(hostile, environment=listed, secretRefs=[{"name": "large"}])
    grown = await least_allocated(other.process) - before
    assert grown < 3 * 1024 * 1024


async def test_objects_that_the_operator_publishes_are_taken(hostile: World, other: OtherTenant):
    taken = {
        "ConfigMap": names.PUBLIC_CONFIG_MAP,
        "Secret": names.STORAGE_USER_SECRET,
    }
    for kind, name in taken.items():
        await hostile.cluster.delete(kind, HOSTILE, name)
        metadata = {"name": name, "namespace": HOSTILE, "finalizers": ["tenant.example/held"]}
        await hostile.cluster.create(
            {"apiVersion": "v1", "kind": kind, "immutable": True, "metadata": metadata}
        )
    trainer = await hostile_run(hostile)
    await trainer.succeed()
    await wait_for_phase(hostile, trainer.run.name, "Succeeded", stretched(10))


async def test_finalizers_on_everything_of_a_run(hostile: World, other: OtherTenant):
    trainer = await hostile_run(hostile)
    name, uid = trainer.run.name, trainer.run.uid
    held = {"metadata": {"finalizers": ["tenant.example/held"]}}
    config_map = (await hostile.spec_config_map(name))["metadata"]["name"]
    things = (
        (names.KIND, name),
        ("ConfigMap", config_map),
        ("Secret", names.storage_secret_name(name, uid)),
        ("Job", names.job_name(name, uid, 0)),
        ("Pod", trainer.name),
    )
    for kind, thing in things:
        await hostile.cluster.patch(kind, HOSTILE, thing, held)
    for kind, thing in things:
        await hostile.cluster.delete(kind, HOSTILE, thing)
    second = await hostile.submit(f"{name}-b")
    await wait_for_phase(hostile, second.name, "Starting", stretched(10))
    await asyncio.sleep(2)
    other.check_operator()
    for kind, thing in things:
        await hostile.cluster.patch(kind, HOSTILE, thing, {"metadata": {"finalizers": None}})


async def test_an_operator_that_starts_with_poison_and_many_live_runs(
    stage: Stage, hostile: World, cluster: Cluster, gate: StorageGate
):
    """Each read takes 25 ms. And then once more, with a wall clock that is 31 minutes ahead."""
    trainer = await hostile_run(hostile)

    def put(number: int) -> None:
        run = RunIdentity(namespace="team-unknown", name=f"flash-{number}", uid=f"uid-{number}")
        beat = Heartbeat(run=run, attempt=1, pod="p", activity="Training", updated=now())
        stage.store.put_json(names.heartbeat_key(run.uid), beat)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(500)))
    trainer.beat(1)
    trainer.store.put_bytes(
        names.heartbeat_key(trainer.run.uid), heartbeat(trainer, updated="2026-11-01T10:00:00")
    )
    before = OtherTenant(stage.world(cluster, OTHER), stage.operators, stage.process)
    theirs = await before.start_run()
    theirs.beat(3)
    await wait_for_phase(before.world, theirs.run.name, "Running", stretched(10))

    gate.pause = 0.025
    try:
        stage.restart()
    finally:
        gate.pause = 0.0
    assert "the lease is lost" not in stage.operators.logs()
    assert "heartbeat is ignored" in await ignored(hostile, trainer)
    await OtherTenant(before.world, stage.operators, stage.process).is_served()

    stage.restart(program=(sys.executable, "-c", SKEWED))
    skewed = OtherTenant(before.world, stage.operators, stage.process)
    theirs.beat(4)
    await asyncio.sleep(5)
    await skewed.is_served()
    await skewed.finish(theirs)
    await Kubelet(cluster).end(trainer.pod, 0)
