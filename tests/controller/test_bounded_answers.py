"""What the operator reads of objects of the largest size, and what that takes of its memory."""

import gc
import itertools
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.resource import FlashRun
from flashrun.cluster_errors import TooLarge, Unreachable
from flashrun.cluster_requests import RESOURCES, Request
from flashrun.controller.bounded_answers import BoundedAnswers
from flashrun.plan.notices import read_notices
from flashrun.plan.pods import read_pod
from tests.controller.large_objects import (
    FLOOD,
    PARAMS,
    SIZE,
    large_labels,
    large_run,
    post,
    repeated,
)
from tests.controller.stage import Object, World
from tests.servers import kubectl

MIB = 1024 * 1024
RUN = "flash-1-0a1b2c3d"
PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


def asked(kind: str, verb: str = "get", accept: str = "application/json") -> Request:
    return Request(verb, "GET", RESOURCES[kind], "team", RUN, accept=accept)


def read(request: Request, text: bytes | str) -> Object:
    content = text.encode() if isinstance(text, str) else text
    return BoundedAnswers().read(request, bytearray(content))


def metadata(**more: Any) -> Object:
    created = "2026-11-01T10:00:00Z"
    return {"name": RUN, "namespace": "team", "uid": "u", "creationTimestamp": created, **more}


def run_text(params: str, status: Object | None = None, **more: Any) -> str:
    """A FlashRun with ``params`` as they are written."""
    head = json.dumps({"metadata": metadata(**more)})[:-1]
    spec = f'{{"environment": {{"id": "org/env", "params": {params}}}, "model": "m"}}'
    return f'{head}, "spec": {spec}, "status": {json.dumps(status or {})}}}'


STARTED = {"phase": "Running", "resolved": {"environmentDigest": "d" * 64}}
OWNERS = repeated('{"kind":"Job","uid":"u"}')
KEYS = repeated('"key-%06d":""')
TOO_LARGE: dict[str, tuple[str, str, str, str]] = {
    "a run with many values": (
        names.KIND, "get", run_text(json.dumps({"a": [0] * 17_000})), "more than 16,384 values",
    ),
    "a run with a flood of values": (
        names.KIND, "get", run_text(FLOOD), "at most 524,288 are read",
    ),
    "a run with a long text": (
        names.KIND, "get", run_text(json.dumps({"a": "x" * SIZE})), "at most 524,288 are read",
    ),
    "a run that is nested deeply": (
        names.KIND, "get", run_text(f'{{"a": {"[" * 9000}{"]" * 9000}}}'), "nested too deeply",
    ),
    "a ConfigMap with very many keys": (
        "ConfigMap", "get",
        f'{{"metadata": {{}}, "data": {{{KEYS}}}}}',
        "more than 1,024 keys",
    ),
    "a pod with very many owners": (
        "Pod", "get",
        f'{{"metadata": {{"ownerReferences": [{OWNERS}]}}}}',
        "more than 16,384 values",
    ),
}  # fmt: skip


def peak_of(action: Callable[[], object]) -> int:
    """The most memory of ``action``, in bytes of Python objects."""
    gc.collect()
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", TOO_LARGE)
def test_what_is_too_large_is_refused_without_building_it(case: str) -> None:
    kind, verb, text, sentence = TOO_LARGE[case]
    content = bytearray(text.encode())

    def refuse() -> None:
        with pytest.raises(TooLarge, match=sentence):
            BoundedAnswers().read(asked(kind, verb), content)

    refuse()
    began = time.process_time()
    refuse()
    assert time.process_time() - began < 0.5
    assert peak_of(refuse) < MIB / 2


LABELS = repeated('"label-%06d":""')
FLOODED: dict[str, tuple[Request, str]] = {
    "labels": (asked("Pod"), f'{{"metadata": {{"name": "p", "labels": {{{LABELS}}}}}}}'),
    "labels of a run": (asked(names.KIND), run_text("{}", labels=json.loads(f"{{{LABELS}}}"))),
    "environment variables": (
        asked("Pod"),
        f'{{"metadata": {{"name": "p"}}, "spec": {{"containers": [{{"name": "c", "env": '
        f"[{repeated(json.dumps({'name': 'A', 'value': ''}))}]}}]}}}}",
    ),
    "a template": (
        asked("Job"),
        f'{{"metadata": {{}}, "spec": {{"suspend": true, "template": [{repeated("[]")}]}}}}',
    ),
    "a page of metadata": (
        asked("Pod", "list", f"{PARTIAL}List"),
        f'{{"metadata": {{}}, "items": [{{"metadata": {{"name": "p", "labels": {{{LABELS}}}}}}}]}}',
    ),
    "a page of pods": (
        asked("Pod", "list"),
        f'{{"metadata": {{}}, "items": [{{"metadata": {{"name": "p", "labels": {{{LABELS}}}}}}}]}}',
    ),
}


@pytest.mark.parametrize("case", FLOODED)
def test_what_is_not_needed_takes_no_memory(case: str) -> None:
    request, text = FLOODED[case]
    content = bytearray(text.encode())

    def attempt() -> None:
        with suppress(TooLarge):  # as many labels as no object of ours has
            BoundedAnswers().read(request, content)

    attempt()
    assert peak_of(attempt) < MIB / 2


def test_the_spec_of_a_run_that_has_begun_is_read_whatever_its_size() -> None:
    params = json.dumps({"a": [0] * 100_000})
    got = read(asked(names.KIND), run_text(params, STARTED))
    assert len(got["spec"]["environment"]["params"]["a"]) == 100_000
    assert FlashRun.from_manifest(got).status.phase == "Running"
    with pytest.raises(TooLarge) as error:
        read(asked(names.KIND), run_text(params, {"phase": "Pending"}))
    assert error.value.known is not None
    assert error.value.known["metadata"]["uid"] == "u"
    assert error.value.known["status"] == {"phase": "Pending"}


def test_long_texts_of_a_pod_are_cut() -> None:
    pod = {
        "metadata": metadata(ownerReferences=[{"kind": "k" * 9_000, "uid": "u" * 9_000}] * 100),
        "status": {"conditions": [{"type": "Ready", "status": "True", "message": "m" * 9_000}]},
    }
    got = read(asked("Pod"), json.dumps(pod))
    owners = got["metadata"]["ownerReferences"]
    assert (len(owners), len(owners[0]["uid"]), len(owners[0]["kind"])) == (8, 64, 64)
    assert len(got["status"]["conditions"][0]["message"]) == 4_096


FULL_POD: Object = {
    "metadata": metadata(
        deletionTimestamp="2026-11-01T10:10:00Z",
        labels={names.JOB_NUMBER_LABEL: "1", names.POD_INDEX_LABEL: "1", names.RUN_LABEL: RUN},
        ownerReferences=[{"kind": "Job", "uid": "j", "controller": True}],
    ),
    "spec": {
        "nodeName": "node-1",
        "initContainers": [{"name": "added", "restartPolicy": "Always"}],
    },
    "status": {
        "phase": "Failed",
        "startTime": "2026-11-01T09:59:00Z",
        "reason": "Evicted",
        "message": "too much disk",
        "conditions": [
            {"type": "DisruptionTarget", "status": "True", "reason": "r"},
            {"type": "PodScheduled", "status": "False", "message": "m"},
            {"type": "Initialized", "status": "False"},
        ],
    },
}
ENDED: Object = {
    "exitCode": 1, "reason": "OOMKilled", "message": "m", "startedAt": "2026-11-01T10:00:00Z",
    "finishedAt": "2026-11-01T10:05:00Z",
}  # fmt: skip


class ReadKeys(dict[str, Any]):
    """An object that notes which of its keys are read, and of objects in it."""

    def __init__(self, content: Object, place: str, seen: set[str]) -> None:
        super().__init__({key: watched(value, f"{place}.{key}", seen)
                          for key, value in content.items()})  # fmt: skip
        self._place, self._seen = place, seen

    def __getitem__(self, key: str) -> Any:
        self._seen.add(f"{self._place}.{key}")
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._seen.add(f"{self._place}.{key}")
        return super().get(key, default)


def watched(value: Any, place: str, seen: set[str]) -> Any:
    if isinstance(value, dict):
        return ReadKeys(value, place, seen)
    return [watched(item, place, seen) for item in value] if isinstance(value, list) else value


def places(value: Any, place: str = "pod") -> Iterator[str]:
    for item in value if isinstance(value, list) else ():
        yield from places(item, place)
    for key, item in value.items() if isinstance(value, dict) else ():
        yield f"{place}.{key}"
        yield from places(item, f"{place}.{key}")


STATES: list[Object] = [
    {"running": {"startedAt": "2026-11-01T10:00:00Z"}},
    {"waiting": {"reason": "ImagePullBackOff", "message": "m"}},
    {"terminated": ENDED},
]


@pytest.mark.parametrize("phase", ["Pending", "Running", "Failed"])
def test_decisions_read_of_a_pod_what_the_bounded_answer_leaves_in_it(phase: str) -> None:
    """A key that ``FULL_POD`` lacks fails here, too: what is read below it would not be seen."""
    seen: set[str] = set()
    left: set[str] = set()
    full: set[str] = set()
    for name, started, first, then in itertools.product(
        ("added", "model"), (True, False), STATES, STATES
    ):
        statuses = {
            "initContainerStatuses": [{"name": name, "started": started, "state": first}],
            "containerStatuses": [{"name": "trainer", "state": then}],
        }
        pod = FULL_POD | {"status": FULL_POD["status"] | {"phase": phase} | statuses}
        bounded = read(asked("Pod"), json.dumps(pod))
        assert read_pod(bounded) == read_pod(pod)
        read_pod(ReadKeys(pod, "pod", seen))
        full |= set(places(pod))
        left |= set(places(bounded))
    assert seen - (left & full) == set()
    assert len(seen) > 25


def test_a_pod_of_very_many_containers_is_read_in_part() -> None:
    added = [{"name": "a" * 5_000, "restartPolicy": "Always", "env": [{}]}] * 100
    got = read(
        asked("Pod"), json.dumps({"metadata": metadata(), "spec": {"initContainers": added}})
    )
    read_of_them = got["spec"]["initContainers"]
    assert len(read_of_them) == 64
    assert read_of_them[0] == {"name": "a" * 4_096, "restartPolicy": "Always"}


def test_what_events_say_is_left_in_them_and_everything_else_is_not_built() -> None:
    events = [
        {"metadata": metadata(managedFields=[{}] * 9), "type": "Warning", "reason": "FailedCreate",
         "message": "m", "lastTimestamp": "2026-11-01T10:05:00Z", "note": "n",
         "source": {"component": "job-controller", "host": "h"}},
        {"metadata": metadata(), "type": "Normal", "reason": "NotTriggerScaleUp", "message": "m",
         "eventTime": "2026-11-01T10:06:00.000000Z", "reportingComponent": "cluster-autoscaler",
         "series": {"count": 3, "lastObservedTime": "2026-11-01T10:07:00.000000Z"}},
        {"metadata": metadata(), "message": "m" * 1_000_000},
    ]  # fmt: skip
    page = json.dumps({"metadata": {"resourceVersion": "1"}, "items": events})
    items = read(asked("Event", "list"), page)["items"]

    assert [notice.message for notice in read_notices(items)] == ["m", "m", "m" * 2048]
    assert read_notices(items) == read_notices(events)
    assert all("managedFields" not in item["metadata"] and "note" not in item for item in items)
    assert len(items[2]["message"]) == 4096


def test_a_deletion_is_done_whatever_the_server_answers() -> None:
    assert read(asked("Pod", "delete"), b'{"kind": "Status", "status": "Success"}') == {}


def test_an_answer_that_is_not_json_is_named() -> None:
    with pytest.raises(Unreachable, match="cannot be read"):
        read(asked("Pod"), b"<html>")


# --- a real API server --------------------------------------------------------------------------


@pytest.mark.api
@pytest.mark.parametrize("case", PARAMS)
async def test_a_run_that_is_too_large_says_so_once_and_takes_little_memory(
    world: World, case: str
):
    post(world, names.KIND, large_run(world.namespace, case))
    name = f"flash-1-{case}"
    await world.pass_over(name)
    before = await world.cluster.metadata(names.KIND, world.namespace, name)
    gc.collect()
    tracemalloc.start()
    try:
        await world.pass_over(name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    after = await world.cluster.metadata(names.KIND, world.namespace, name)
    assert before == after
    shown = kubectl(
        world.kubeconfig, "get", "flashrun", name, "-n", world.namespace,
        "-o", "jsonpath={.status.phase} {.status.pending.message}",
    )  # fmt: skip
    assert shown.startswith("Pending This operator cannot read the spec: spec: it ")
    assert peak < 3 * MIB


@pytest.mark.api
async def test_pods_and_jobs_of_the_largest_size_are_read_in_pieces(world: World):
    """They carry the labels of a run, are owned by it, and the run goes on beside them."""
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    pod = await world.pod(RUN)
    ours = pod["metadata"]["labels"]
    own = pod["metadata"]["ownerReferences"][0]
    job = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": RUN, "uid": run.uid}
    containers = [{"name": "c", "image": "i"}]
    for number in range(3):
        meta = {"namespace": world.namespace, "labels": large_labels(ours)}
        name = f"a-{number}"  # before the run's own, in the order of a list
        await world.cluster.create(
            {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": meta | {"name": name, "ownerReferences": [own]},
                "spec": {"containers": containers},
            }
        )  # fmt: skip
        template = {"spec": {"containers": containers, "restartPolicy": "Never"}}
        await world.cluster.create(
            {
                "apiVersion": "batch/v1", "kind": "Job",
                "metadata": meta | {"name": name, "ownerReferences": [job]},
                "spec": {"suspend": True, "template": template},
            }
        )  # fmt: skip
    await world.pass_over(RUN)
    gc.collect()
    tracemalloc.start()
    try:
        await world.pass_over(RUN)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * MIB  # two answers of up to 2 MiB at the same time, and what is read of them
    await (await world.trainer(RUN)).succeed()
    await world.phase(RUN, "Succeeded")
