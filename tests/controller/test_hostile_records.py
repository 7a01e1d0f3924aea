"""Hostile records of one run: they cost that run one condition.

The records are written with the storage credentials of the hostile run's own trainer. That they
cost other runs nothing is in ``test_other_tenant``.
"""

import json
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.resource import ConditionStatus, FlashRun
from flashrun.controller.operator_metrics import RECORDS_REFUSED
from flashrun.store import Store
from tests.controller.stage import Trainer, World, now

pytestmark = pytest.mark.api
BAD = "flash-2-0a1b2c3d"


async def start(world: World) -> Trainer:
    await world.submit(BAD)
    await world.phase(BAD, "Starting")
    return await world.trainer(BAD)


def ignored(run: FlashRun) -> str:
    """Why a record of the run is ignored."""
    condition = run.status.condition("CheckpointsSynced")
    if condition is None or condition.status is not ConditionStatus.FALSE:
        return ""
    return f"{condition.reason}: {condition.message}"


def heartbeat(trainer: Trainer, **changes: Any) -> bytes:
    record = {
        "run": trainer.identity.model_dump(), "attempt": 1, "pod": trainer.name,
        "activity": "Training", "progress": {"step": 3, "total_steps": 9},
        "updated": now().isoformat(),
    }  # fmt: skip
    return json.dumps({**record, **changes}).encode()


HEARTBEATS: dict[str, tuple[Callable[[Trainer], bytes], str]] = {
    "no zone": (lambda t: heartbeat(t, updated="2026-11-01T10:00:00"), "has no time zone"),
    "no zone for ever": (lambda t: heartbeat(t, updated="9999-12-31T23:59:59"), "no time zone"),
    "not in UTC": (lambda t: heartbeat(t, updated="9999-12-31T23:59:59-05:00"), "not a time"),
    "ten years ahead": (
        lambda t: heartbeat(t, updated=(now() + timedelta(days=3650)).isoformat()),
        "more than a day ahead",
    ),
    "a huge step": (
        lambda t: heartbeat(t, progress={"step": 10**30, "total_steps": 9}),
        "progress.step",
    ),
    "a long metric": (
        lambda t: heartbeat(
            t, progress={"step": 3, "total_steps": 9, "metrics": {"m" * 300_000: 1.0}}
        ),
        "longer than 65536 bytes",
    ),
    "an endless score": (
        lambda t: heartbeat(
            t, evaluation={"metric": "score", "best": {"step": 1, "score": float("inf")}}
        ),
        "evaluation.best.score",
    ),
    "a long metric of an evaluation": (
        lambda t: heartbeat(t, evaluation={"metric": "m" * 257}),
        "evaluation.metric",
    ),
    "an evaluation with more than it has": (
        lambda t: heartbeat(t, evaluation={"metric": "score", "command": "x"}),
        "evaluation.command",
    ),
    "deep": (lambda _: b"[" * 60_000, "not a valid Heartbeat record"),
    "no text": (lambda _: b"\xff\x00" * 99, "not a valid Heartbeat record"),
}


@pytest.mark.parametrize("case", HEARTBEATS)
async def test_a_hostile_heartbeat_costs_its_run_one_condition(world: World, case: str):
    content, problem = HEARTBEATS[case]
    bad = await start(world)
    bad.store.put_bytes(names.heartbeat_key(bad.run.uid), content(bad))
    run = await world.until(BAD, ignored, 5)
    assert ignored(run).startswith("RecordRefused: The heartbeat is ignored: ")
    assert problem in ignored(run)
    assert len(json.dumps(run.status.to_patch())) < 10_000
    world.heartbeats.delete_orphans(set(), (world.namespace,), lambda run: None)


async def test_a_heartbeat_with_an_encoding_that_does_not_fit_its_bytes_is_only_refused(
    world: World,
):
    bad = await start(world)
    put_encoded(bad.store, names.heartbeat_key(bad.run.uid), b"not gzip")
    world.restart()
    before = RECORDS_REFUSED.labels("Heartbeat")._value.get()
    run = await world.until(BAD, ignored, 5)
    assert "not a valid Heartbeat record" in ignored(run)
    assert RECORDS_REFUSED.labels("Heartbeat")._value.get() == before + 1


def put_encoded(store: Store, key: str, data: bytes) -> None:
    headers = {"Content-Encoding": "gzip"}
    store._client()._execute("PUT", store.access.bucket, key, body=data, headers=headers)


async def test_twelve_manifests_of_8_megabytes_do_not_grow_the_operator(world: World):
    bad = await start(world)
    data = b"[" + b"0," * (4 * 1024 * 1024)
    for step in range(1, 13):
        prefix = names.step_prefix(bad.run.storage_prefix, 1, step)
        bad.store.put_bytes(prefix + names.MANIFEST, data)
    del data
    tracemalloc.start()
    try:
        run = await world.until(BAD, ignored, 20)
        grown, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "manifest.json is longer than 262144 bytes" in ignored(run)
    assert peak < 32 * 1024 * 1024
    assert grown < 8 * 1024 * 1024


async def test_a_run_with_too_many_files_is_read_up_to_its_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flashrun.controller.run_records.LISTED_LIMIT", 20)
    bad = await start(world)
    for number in range(30):
        bad.store.put_bytes(f"{bad.run.storage_prefix}attempt-1/junk-{number}", b"")
    run = await world.until(BAD, ignored, 5)
    assert ignored(run).startswith("TooManyFiles: More than 20 files are stored below ")


async def test_older_manifests_beyond_the_bound_are_ignored(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flashrun.controller.run_records.MANIFESTS_LIMIT", 2)
    bad = await start(world)
    for step in (10, 20, 30):
        bad.commit(step)
    run = await world.until(BAD, ignored, 5)
    assert ignored(run).startswith("TooManyFiles: ")
    assert [checkpoint.step for checkpoint in run.status.checkpoints] == [30, 20]


RECORDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "exit code": ("result.json", {"exit_code": 10**30}, "exit_code"),
    "result in year 9999": ("result.json", {"finished": "9999-12-31T23:59:59-05:00"}, "finished"),
    "claim": ("attempt-7/claim.json", {"attempt": 10**30}, "attempt"),
    "manifest": ("attempt-1/step-5/manifest.json", {"step": 10**30}, "step"),
}


@pytest.mark.parametrize("case", RECORDS)
async def test_a_poison_record_is_ignored_and_its_run_still_ends(world: World, case: str):
    path, fields, problem = RECORDS[case]
    bad = await start(world)
    identity, moment = bad.identity.model_dump(), now().isoformat()
    record: dict[str, Any] = {
        "result.json": {"run": identity, "attempt": 1, "exit_code": 0, "finished": moment},
        "attempt-7/claim.json": {"pod": "p", "pod_uid": "u", "started": moment},
        "attempt-1/step-5/manifest.json": {
            "kind": "checkpoint", "run": identity, "attempt": 1, "created": moment, "files": [],
        },
    }[path]  # fmt: skip
    bad.store.put_bytes(bad.run.storage_prefix + path, json.dumps({**record, **fields}).encode())
    run = await world.until(BAD, ignored, 5)
    assert f"record: {problem}" in ignored(run)
    if path == "result.json":
        await bad.end(0)
        await world.phase(BAD, "Failed", 20)


async def test_attempts_in_other_digits_do_not_exist(world: World):
    bad = await start(world)
    for digits in ("²", "٣", "1" * 40):
        bad.store.put_bytes(f"{bad.run.storage_prefix}attempt-{digits}/claim.json", b"{}")
        bad.store.put_bytes(f"{bad.run.storage_prefix}attempt-{digits}/step-1/manifest.json", b"{}")
    bad.beat(1)
    await world.until(BAD, lambda run: run.status.phase == "Running", 5)


async def test_what_a_pod_wrote_reaches_status_without_secrets_and_escape_sequences(world: World):
    bad = await start(world)
    token = "hf_" + "a1B2c3D4e5F6g7H8i9J0"
    message = {"reason": "RewardFailed", "message": f"\x1b[31mno {token}\nhere", "hint": token}
    await bad.end(70, message=json.dumps(message))
    run = await world.phase(BAD, "Failed")
    assert run.status.failure is not None
    assert (run.status.failure.message, run.status.failure.hint) == ("[31mno *** here", "***")
