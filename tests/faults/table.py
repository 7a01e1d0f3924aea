"""The table of faults: what goes wrong, for how long, and how soon all must be well again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from typing import Final, NamedTuple

from flashrun.api import names
from localcluster.steps import StepRunner
from tests.faults import kinds
from tests.faults.proxy import Fault
from tests.faults.scene import Scene

SECONDS: Final = 60.0
"""Within so many seconds after a fault, all is well."""
LOST_EVENT_SECONDS: Final = 35.0
"""Within so many seconds after an event was lost."""
SHORT, LONG = 4.0, 60.0

Begin = Callable[[Scene], AbstractAsyncContextManager[None]]
"""Begins a fault, and ends it."""


class Row(NamedTuple):
    """One fault, while runs are submitted and while they end."""

    where: str
    name: str
    begin: Begin
    lasts: float = SHORT
    limit: float = SECONDS
    from_begin: bool = False
    """Whether the limit counts from the begin of the fault."""
    reachable: bool = True
    """Whether people reach the API server during the fault."""
    windows: tuple[str, ...] = ("start", "end")
    """When in the life of runs it happens."""
    restarts: bool = False
    """Whether the operator's process may end."""
    quick: bool = False
    """Whether it is also tried in the API tier."""


def api(make: Callable[[], Fault]) -> Begin:
    """Return what begins a fault between the operator and the API server."""

    @asynccontextmanager
    async def begin(scene: Scene) -> AsyncIterator[None]:
        with scene.replicas[0].api.with_faults(make()):
            yield

    return begin


def s3(make: Callable[[], Fault]) -> Begin:
    """Return what begins a fault between the operator and storage."""

    @asynccontextmanager
    async def begin(scene: Scene) -> AsyncIterator[None]:
        with scene.replicas[0].storage.with_faults(make()):
            yield

    return begin


def frozen(server: str) -> Begin:
    """Return what stops a server by SIGSTOP."""

    @asynccontextmanager
    async def begin(scene: Scene) -> AsyncIterator[None]:
        daemons = scene.minio.daemons if server == "minio" else scene.plane.daemons
        pid = daemons.pid(server)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    return begin


def killed(server: str) -> Begin:
    """Return what ends a server by SIGKILL, and starts it again."""

    @asynccontextmanager
    async def begin(scene: Scene) -> AsyncIterator[None]:
        daemons = scene.minio.daemons if server == "minio" else scene.plane.daemons
        pid = daemons.pid(server)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        try:
            yield
        finally:
            _restart(scene, server)  # in this thread: servers end with the one that started them

    return begin


def _restart(scene: Scene, server: str) -> None:
    if server == "minio":
        scene.minio.start()
        return
    with closing(StepRunner.silent(scene.plane.folder)) as steps:
        scene.plane.start(steps)


def _stale() -> Begin:
    @asynccontextmanager
    async def begin(scene: Scene) -> AsyncIterator[None]:
        [old] = [f for f in scene.replicas[0].api.faults if isinstance(f, kinds.OldSnapshot)]
        old.lies = True
        try:
            yield
        finally:
            old.lies = False

    return begin


@asynccontextmanager
async def nothing(scene: Scene) -> AsyncIterator[None]:
    """No fault, to compare with."""
    yield


@asynccontextmanager
async def operator_killed(scene: Scene) -> AsyncIterator[None]:
    """Kill the operator; its kubelet starts it again."""
    replica = scene.replicas[0]
    assert replica.process is not None
    await asyncio.sleep(0.2)
    replica.process.kill()
    replica.process.wait()
    yield
    scene.start(replica)


API, S3, SERVERS, OPERATOR = (
    "between operator and API server",
    "between operator and storage",
    "servers",
    "operator",
)
SOME = kinds.ONCE_IN_A_WHILE
RUNS, JOBS, PODS = names.PLURAL, "jobs", "pods"
RESTING = 9.0
"""Longer than the lease is held."""

ROWS: Final = (
    Row(OPERATOR, "nothing goes wrong", nothing, lasts=0),
    # Requests to the API server.
    Row(API, "every request is refused with 503", api(lambda: kinds.Refuse()), lasts=RESTING),
    Row(API, "every third request is refused with 500",
        api(lambda: kinds.Refuse(every=SOME, status=500)), quick=True),
    Row(API, "every write is refused with 429 and Retry-After 5",
        api(lambda: kinds.Refuse(kinds.writes, status=429, retry_after=5)), lasts=RESTING),
    Row(API, "every read and watch is refused with 403",
        api(lambda: kinds.Refuse(lambda e: e.is_read or e.is_watch, status=403)), lasts=RESTING),
    Row(API, "Jobs cannot be created for a minute: 500",
        api(lambda: kinds.Refuse(kinds.about(JOBS, "POST"), status=500)), lasts=LONG,
        windows=("start",)),
    Row(API, "statuses cannot be written for a minute: 500",
        api(lambda: kinds.Refuse(lambda e: e.path.endswith("/status"), status=500)), lasts=LONG),
    Row(API, "every write conflicts: 409",
        api(lambda: kinds.Refuse(kinds.writes, status=409)), lasts=RESTING),
    Row(API, "every answer comes 2 s late", api(lambda: kinds.Delay(seconds=2.0)), lasts=RESTING),
    Row(API, "every request hangs", api(lambda: kinds.Hang()), lasts=RESTING),
    Row(API, "every write hangs, the lease is renewed",
        api(lambda: kinds.Hang(kinds.writes)), lasts=RESTING),
    Row(API, "renewals of the lease hang", api(lambda: kinds.Hang(kinds.leases)), lasts=RESTING),
    Row(API, "every third connection breaks before the request is read",
        api(lambda: kinds.Break(every=SOME))),
    Row(API, "every third answer is lost, what it answers is done",
        api(lambda: kinds.LoseAnswer(every=SOME))),
    Row(API, "the answer of every write is lost, what it answers is done",
        api(lambda: kinds.LoseAnswer(kinds.writes)), quick=True),
    Row(API, "every second answer breaks off in the middle",
        api(lambda: kinds.CutAnswer(every=2))),
    Row(API, "reads show an old snapshot", _stale(), lasts=RESTING),
    # Watches.
    Row(API, "events of runs are lost", api(lambda: kinds.LoseEvents(kinds.watches_of(RUNS))),
        lasts=3, limit=LOST_EVENT_SECONDS, from_begin=True, windows=("start",)),
    Row(API, "events of Jobs and pods are lost",
        api(lambda: kinds.LoseEvents(lambda e: e.is_watch and not e.is_about(RUNS))),
        lasts=3, limit=LOST_EVENT_SECONDS, from_begin=True, windows=("end",)),
    Row(API, "events come twice, and old ones once more", api(lambda: kinds.RepeatEvents()),
        quick=True),
    Row(API, "events of different objects come in another order",
        api(lambda: kinds.ReorderEvents())),
    Row(API, "events come 3 s late", api(lambda: kinds.DelayEvents())),
    Row(API, "each watch breaks at its first event", api(lambda: kinds.EndWatch())),
    Row(API, "each watch ends with 410 Gone", api(lambda: kinds.ErrorEvent(code=410))),
    Row(API, "each watch ends with an internal error", api(lambda: kinds.ErrorEvent(code=500))),
    Row(API, "watches cannot be opened, lists answer",
        api(lambda: kinds.Refuse(kinds.watches, status=503)), lasts=RESTING, windows=("end",)),
    # Requests to storage.
    Row(S3, "every request is refused with 503", s3(lambda: kinds.Refuse())),
    Row(S3, "every third request is refused with 500",
        s3(lambda: kinds.Refuse(every=SOME, status=500))),
    Row(S3, "every write is refused with 429 and Retry-After 5",
        s3(lambda: kinds.Refuse(kinds.writes, status=429, retry_after=5))),
    Row(S3, "every answer comes 3 s late", s3(lambda: kinds.Delay(seconds=3.0))),
    Row(S3, "every request hangs", s3(lambda: kinds.Hang())),
    Row(S3, "every third connection breaks before the request is read",
        s3(lambda: kinds.Break(every=SOME))),
    Row(S3, "the answer of every write is lost, what it answers is done",
        s3(lambda: kinds.LoseAnswer(kinds.writes)), quick=True),
    Row(S3, "every second answer breaks off in the middle", s3(lambda: kinds.CutAnswer(every=2))),
    Row(S3, "no credentials are issued: 503", s3(lambda: kinds.Refuse(kinds.credentials)),
        windows=("start",)),
    # Processes.
    Row(OPERATOR, "the operator is killed, and started again at once", operator_killed, lasts=0,
        restarts=True),
    Row(SERVERS, "the API server is stopped (SIGSTOP) for 4 s", frozen("kube-apiserver"),
        lasts=4, reachable=False),
    Row(SERVERS, "the API server is stopped (SIGSTOP) for 60 s", frozen("kube-apiserver"),
        lasts=LONG, reachable=False, windows=("start",)),
    Row(SERVERS, "the API server is killed, and away for 60 s", killed("kube-apiserver"),
        lasts=LONG, reachable=False, windows=("end",)),
    Row(SERVERS, "etcd is stopped (SIGSTOP) for 60 s", frozen("etcd"), lasts=LONG,
        reachable=False, windows=("end",)),
    Row(SERVERS, "etcd is killed, and away for 60 s", killed("etcd"), lasts=LONG, reachable=False,
        windows=("start",)),
    Row(SERVERS, "the controller manager is stopped (SIGSTOP) for 15 s",
        frozen("kube-controller-manager"), lasts=15, windows=("end",)),
    Row(SERVERS, "the controller manager is killed, and away for 15 s",
        killed("kube-controller-manager"), lasts=15, windows=("start",)),
    Row(SERVERS, "storage is stopped (SIGSTOP) for 30 s", frozen("minio"), lasts=30,
        windows=("start",)),
    Row(SERVERS, "storage is killed, and away for 15 s", killed("minio"), lasts=15,
        windows=("start",)),
)  # fmt: skip
