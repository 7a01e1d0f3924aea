"""The operator's smaller parts, each by itself."""

import io
import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashrun.api import names
from flashrun.api.platform import Pool
from flashrun.api.records import Heartbeat, RunIdentity
from flashrun.cluster_errors import Conflict
from flashrun.controller import json_logs, publish
from flashrun.controller.__main__ import _storage
from flashrun.controller.health import Health
from flashrun.controller.lease import HOLD_SECONDS, LEASE_SECONDS, Lease
from flashrun.controller.settings import load
from flashrun.store import Store
from flashrun.store_errors import StoreError

PLATFORM = {
    "storage": {"endpoint": "https://s3.example"},
    "trainer": {"image": "registry.example/trainer@sha256:1"},
    "pools": [{"name": "small", "vram": 24}],
}

# --- the lease ------------------------------------------------------------------------------------


class LeaseApi:
    """One Lease with optimistic locking: the part of an API server that elections rest on."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = False
        self.version = 0

    async def find(self, *_: str) -> dict[str, Any] | None:
        if self.down:
            raise Conflict("down")
        return json.loads(json.dumps(self.lease)) if self.lease else None

    async def get(self, *_: str) -> dict[str, Any]:
        found = await self.find()
        assert found is not None
        return found

    async def create(self, lease: dict[str, Any]) -> None:
        self.lease = lease | {"version": self.version}

    async def replace(self, lease: dict[str, Any]) -> None:
        if self.down or lease["version"] != self.version:
            raise Conflict("changed")
        self.version += 1
        self.lease = lease | {"version": self.version}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def api() -> LeaseApi:
    return LeaseApi()


def candidate(api: LeaseApi, name: str, clock: Clock) -> Lease:
    return Lease(api, "ns", "lease", name, clock)  # type: ignore[arg-type]


async def test_of_two_candidates_one_holds_the_lease(api: LeaseApi):
    clock = Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    assert await first._try()
    assert not await second._try()
    assert (first.held, second.held) == (True, False)


async def test_a_holder_stops_before_anyone_else_may_begin(api: LeaseApi):
    clock = Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    await first._try()
    await second._try()
    clock.now = HOLD_SECONDS + 0.1
    assert not first.held
    assert not await second._try()
    clock.now = LEASE_SECONDS + 0.1
    assert await second._try()
    assert not await first._try()


async def test_a_holder_whose_renewals_fail_stops_in_time(api: LeaseApi):
    clock = Clock()
    first = candidate(api, "first", clock)
    await first._try()
    api.down = True
    clock.now = 5
    assert not await first._try()
    assert first.held
    clock.now = HOLD_SECONDS + 0.1
    assert not first.held


async def test_a_candidate_judges_by_what_it_saw_and_not_by_foreign_clocks(api: LeaseApi):
    ahead, clock = Clock(), Clock()
    ahead.now = 1e6
    first, second = candidate(api, "first", ahead), candidate(api, "second", clock)
    for _ in range(5):
        assert await first._try()
        assert not await second._try()
        ahead.now += 8
        clock.now += 8


async def test_a_released_lease_is_taken_at_once(api: LeaseApi):
    clock = Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    await first._try()
    await first.release()
    assert not first.held
    assert await second._try()


# --- health ---------------------------------------------------------------------------------------


def test_a_loop_that_lags_is_not_healthy():
    clock = Clock()
    health = Health(clock)
    assert health.problems() == []
    clock.now = 20
    assert "lags" in health.problems()[0]


def test_every_part_can_complain():
    health = Health(Clock())
    health.checks += [lambda: "", lambda: "2 of 3 watches are alive"]
    assert health.problems() == ["2 of 3 watches are alive"]


# --- the journal ----------------------------------------------------------------------------------


def test_log_lines_are_json_without_secrets(monkeypatch: pytest.MonkeyPatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        json_logs.set_up()
        try:
            raise ValueError("token hf_abcdefghijklmnopqrstuvwxyz was refused")
        except ValueError:
            logging.getLogger("x").exception(
                "with %s", "AKIAABCDEFGHIJKLMNOP", extra={"run": "a/b"}
            )
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    line = json.loads(stream.getvalue())
    assert (line["level"], line["run"], line["message"]) == ("error", "a/b", "with ***")
    assert "hf_" not in line["error"]
    assert "ValueError: token *** was refused" in line["error"]


# --- free GPUs ------------------------------------------------------------------------------------


def node(name: str, gpus: int, ready: bool = True, cordoned: bool = False, **labels: str) -> dict:
    status = "True" if ready else "False"
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": status}],
        },
    }


def pod(on: str, gpus: int, phase: str = "Running") -> dict:
    limits = {"limits": {"nvidia.com/gpu": str(gpus)}}
    spec = {"nodeName": on, "containers": [{"resources": limits}, {}]}
    return {"spec": spec, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("nodes", "pods", "total", "free"),
    [
        ([], [], 0, 0),
        ([node("a", 8)], [], 8, 8),
        ([node("a", 8)], [pod("a", 3), pod("a", 1)], 8, 4),
        ([node("a", 8)], [pod("a", 3, "Succeeded"), pod("a", 1, "Failed")], 8, 8),
        ([node("a", 8), node("b", 8, ready=False)], [], 8, 8),
        ([node("a", 8), node("b", 8, cordoned=True)], [pod("b", 2)], 8, 8),
        ([node("a", 2)], [pod("a", 4)], 2, 0),
        ([node("a", 0)], [], 0, 0),
    ],
)
def test_free_gpus_are_those_nobody_asked_for(
    nodes: list[dict], pods: list[dict], total: int, free: int
):
    assert publish.count(Pool(name="p", vram=80), nodes, pods) == (total, free)


def test_pools_of_one_resource_count_their_own_nodes_each():
    """Both are nvidia.com/gpu to Kubernetes; only the labels of the nodes tell them apart."""
    pools = [Pool(name=gpu, vram=80, node_selector={"gpu": gpu}) for gpu in ("h100", "a10")]
    nodes = [
        node("a", 8, gpu="h100"),
        node("b", 4, gpu="a10"),
        node("c", 2, gpu="a10"),
        node("d", 1),
    ]
    pods = [pod("b", 3), pod("a", 1), pod("d", 1)]
    assert [publish.count(pool, nodes, pods) for pool in pools] == [(8, 7), (6, 3)]


def test_a_pool_of_another_resource_does_not_count_its_neighbours():
    pool = Pool(name="slices", vram=10, resource="nvidia.com/mig-1g.10gb")
    assert publish.count(pool, [node("a", 8)], [pod("a", 3)]) == (0, 0)


# --- the storage keys -----------------------------------------------------------------------------


def test_keys_that_are_rotated_in_their_secret_are_followed(tmp_path: Path):
    """As the kubelet does it: a new folder, and one link that changes."""

    def mount(version: int, access: str, secret: str) -> None:
        data = tmp_path / f"..{version}"
        data.mkdir()
        (data / "accessKey").write_text(access)
        (data / "secretKey").write_text(f"{secret}\n")
        link = tmp_path / "..new"
        link.symlink_to(data.name)
        link.replace(tmp_path / "..data")

    settings = tmp_path / "platform.yaml"
    settings.write_text(yaml.safe_dump(PLATFORM))
    for name in ("accessKey", "secretKey"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    mount(1, "first", "one")
    store = load(settings, tmp_path).store()
    assert (store.access.access_key, store.access.secret_key) == ("first", "one")
    mount(2, "first", "two")
    assert (store.access.access_key, store.access.secret_key) == ("first", "two")
    mount(3, "second", "three")
    assert (store.access.access_key, store.access.secret_key) == ("second", "three")


def test_keys_that_are_missing_are_a_sentence_and_waited_for(tmp_path: Path):
    settings = tmp_path / "platform.yaml"
    settings.write_text(yaml.safe_dump(PLATFORM))
    with pytest.raises(StoreError, match="accessKey cannot be read"):
        load(settings, tmp_path / "absent").store()


# --- before the first pass ------------------------------------------------------------------------


async def test_a_new_process_knows_every_heartbeat_before_it_judges_a_run(
    store: Store, tmp_path: Path
):
    """A run that seems silent for hours would be ended, while its trainer is at work."""
    identity = RunIdentity(namespace="team", name="flash-1-aa", uid="uid")
    beat = Heartbeat(
        run=identity, attempt=1, pod="p", activity="Training", updated=datetime.now(UTC)
    )
    store.put_json(names.heartbeat_key("uid"), beat)
    access = store.access
    place = {"endpoint": access.endpoint, "bucket": access.bucket}
    settings = tmp_path / "platform.yaml"
    settings.write_text(yaml.safe_dump({**PLATFORM, "storage": place}))
    (tmp_path / "accessKey").write_text(access.access_key)
    (tmp_path / "secretKey").write_text(access.secret_key)

    _, heartbeats = await _storage(load(settings, tmp_path))
    assert heartbeats.of("uid") == beat
