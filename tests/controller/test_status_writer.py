"""A status is written over the one that was read, and over no other one."""

from typing import Any

import pytest

from flashrun.api import names
from flashrun.cluster_errors import Conflict
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.queue import RunKey
from flashrun.controller.status_writer import StatusWriter, merged
from tests.controller.stage import Object, flash_run


class RunApi:
    """One FlashRun with optimistic locking: the part of an API server that a status needs."""

    def __init__(self) -> None:
        self.run: Object = flash_run("team", "run") | {"status": {"phase": "Pending"}}
        self.run["metadata"] |= {"uid": "uid", "resourceVersion": "1"}
        self.before_a_write: list[Any] = []

    def change(self, **parts: Object) -> None:
        version = str(int(self.run["metadata"]["resourceVersion"]) + 1)
        self.run = merged(self.run, parts)
        self.run["metadata"]["resourceVersion"] = version

    async def find(self, *_: str) -> Object | None:
        return self.run or None

    async def patch(self, *_: str, subresource: str) -> Object:
        *_, body = _
        if self.before_a_write:
            self.before_a_write.pop(0)()
        assert subresource == "status"
        read = {key: self.run["metadata"].get(key) for key in ("uid", "resourceVersion")}
        if body["metadata"] != read:
            raise Conflict("changed")
        self.change(status=body["status"])
        metadata: Object = self.run["metadata"]
        return metadata


@pytest.fixture
def api() -> RunApi:
    return RunApi()


def writer(api: RunApi, cache: ObjectCache | None = None) -> StatusWriter:
    cluster: Any = api
    return StatusWriter(cluster, api.run, cache)


async def test_a_pass_writes_twice(api: RunApi) -> None:
    own = writer(api)
    await own.write({"resolved": {"job": 0}})
    await own.write({"phase": "Starting"})
    assert api.run["status"] == {"phase": "Starting", "resolved": {"job": 0}}


async def test_a_status_that_somebody_else_wrote_stays(api: RunApi) -> None:
    """A leader that lost its lease would otherwise write over the end of the run."""
    late = writer(api)
    api.change(status={"phase": "Succeeded"})
    with pytest.raises(Conflict, match="the status of run run was changed in between"):
        await late.write({"phase": "Starting"})
    assert api.run["status"]["phase"] == "Succeeded"


async def test_labels_and_control_that_people_change_meanwhile_keep_no_status_away(
    api: RunApi,
) -> None:
    own = writer(api)
    await own.write({"resolved": {"job": 0}})
    api.before_a_write = [lambda: api.change(spec={"control": {"suspend": True}})]
    await own.write({"phase": "Starting"})
    assert api.run["status"] == {"phase": "Starting", "resolved": {"job": 0}}
    assert api.run["spec"]["control"] == {"suspend": True}


async def test_whoever_changes_a_run_without_end_holds_up_one_pass_only(api: RunApi) -> None:
    own = writer(api)
    api.before_a_write = [lambda: api.change(metadata={"labels": {"a": "b"}})] * 10
    with pytest.raises(Conflict):
        await own.write({"phase": "Starting"})
    assert len(api.before_a_write) == 7


async def test_a_later_run_of_the_same_name_gets_no_status(api: RunApi) -> None:
    own = writer(api)
    api.change(metadata={"uid": "another"})
    with pytest.raises(Conflict, match="was deleted and created again in between"):
        await own.write({"phase": "Starting"})
    assert api.run["status"]["phase"] == "Pending"


async def test_until_the_watch_has_shown_a_status_the_cache_does_not_answer(api: RunApi) -> None:
    cache = ObjectCache()
    await writer(api, cache).write({"phase": "Starting"})
    assert cache._collection(names.KIND, "team").written == {"uid": 2}
    assert cache.run(RunKey("team", "run")) is None


def test_merging_is_that_of_json_merge_patches() -> None:
    before = {"a": 1, "b": {"c": 1, "d": 2}, "e": [1]}
    patch = {"a": None, "b": {"c": None, "x": {"y": None, "z": 1}}, "e": [2]}
    assert merged(before, patch) == {"b": {"d": 2, "x": {"z": 1}}, "e": [2]}
