"""The present state of one run, read from the API server and from storage.

What a trainer wrote is checked: a checkpoint counts when its manifest is valid, belongs to this run
and this key, and all files that it lists exist with their listed size. An invalid record counts as
missing.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from flashrun.api import names
from flashrun.api.reasons import TERMINAL
from flashrun.api.records import (
    Ending,
    EnvironmentPointer,
    Heartbeat,
    ResolvedAdapter,
    ResolvedRun,
    Result,
    TrainerControl,
)
from flashrun.api.resource import FlashRun
from flashrun.cluster import Cluster
from flashrun.cluster_errors import AlreadyExists, ClusterError, TooLarge
from flashrun.controller.event_reader import EventReader
from flashrun.controller.mirror_reader import MirrorReader
from flashrun.controller.namespace_usage import NamespaceUsage
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.own_objects import OwnObjects
from flashrun.controller.poll import HeartbeatPoller
from flashrun.controller.pull_failures import PullFailures
from flashrun.controller.queue import RunKey
from flashrun.controller.queue_places import QueuePlaces
from flashrun.controller.run_records import (
    MANIFESTS_LIMIT,
    NewestAttempts,
    RunRecords,
    Verdict,
)
from flashrun.controller.silence import SilenceMeter
from flashrun.controller.storage_threads import call_storage
from flashrun.controller.sweep_places import SweepPlaces
from flashrun.plan.commits import (
    CommitMarker,
    CommitSummary,
    committed,
    find_markers_by_name,
    newest_adapter,
)
from flashrun.plan.credentials import expiry_of
from flashrun.plan.decisions import unfinished_jobs
from flashrun.plan.kueue_workloads import queue_of
from flashrun.plan.listed_folders import listed_adapter, listed_checkpoints
from flashrun.plan.mirrored_models import MirrorAnswer
from flashrun.plan.notices import waiting_objects
from flashrun.plan.objects import is_owned_by
from flashrun.plan.pins import pinned_run
from flashrun.plan.pods import Pod, read_pods
from flashrun.plan.progress_status import with_shown_metrics
from flashrun.plan.types import (
    AdapterSource,
    Notice,
    Object,
    Observed,
    QueuedWorkload,
    SecretLookup,
    StorageView,
)
from flashrun.store import Store
from flashrun.store_errors import StoreError
from flashrun.store_listing import Entry

EVENTS_SECONDS: Final = 5.0
"""Longest time for reading the Events about a run's objects."""
USED_SECONDS: Final = 5.0
"""How long the run's own Secrets, ConfigMap and Service are remembered."""
UNUSED_SECONDS: Final = 60.0
"""How long they are remembered while no pod of the run has begun."""
WAITING_SECONDS: Final = 2.0
"""How long something waits before Events are read about it, which are not watched."""
FRESH_SECONDS: Final = 60.0
"""How long a listing of a run's files is used while its heartbeat reports no new commit."""
NEW_SECONDS: Final = 5.0
"""For how long a run without a status is a new one, whoever may have seen it."""
QUEUED_SECONDS: Final = 60.0
"""The same of a run that was created while this process was the operator: many may be due at once.
"""
POINTER_SECONDS: Final = 5.0
"""For how long it is known which version of an environment is the newest."""
JOBS_LIMIT: Final = 64
"""Most Jobs of one run that a pass looks at: its newest Job, and the newest others."""
PODS_LIMIT: Final = 128
"""Most pods of one run that a pass looks at: the newest."""
_POINTERS_LIMIT: Final = 1_000
_TRUE: Final = "true"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _CachedView:
    """The files of a run as last read, and what shows whether they may have changed."""

    mark: object
    read_at: float
    view: StorageView


class _ReadPointer(NamedTuple):
    """The newest version of an environment, and when it was asked for."""

    asked_at: float
    pointer: EnvironmentPointer


class Observer:
    """Reads the state of runs; caches immutable files and, for a short time, listings."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        heartbeats: HeartbeatPoller,
        mirror: MirrorReader | None = None,
        clock: Callable[[], float] = time.monotonic,
        cache: ObjectCache | None = None,
        usage: NamespaceUsage | None = None,
    ) -> None:
        self._usage = usage
        self._cluster, self._store, self._heartbeats = cluster, store, heartbeats
        self._mirror, self._cache = mirror, cache
        self._clock = clock
        self._views: dict[str, _CachedView] = {}
        self._verdicts: dict[str, dict[bytes, Verdict]] = {}
        self._queues, self._sweeps = QueuePlaces(cluster, clock), SweepPlaces(cluster, clock)
        self._events = EventReader(cluster, clock)
        self._silence = SilenceMeter(lambda: heartbeats.readable_seconds)
        self._pull_failures = PullFailures(clock)
        self._own = OwnObjects(clock)
        self._waiting_since: dict[str, dict[str, float]] = {}
        self._began = datetime.now(UTC)
        self._pointers: dict[str, _ReadPointer] = {}

    async def read(self, run: FlashRun, *, cached: bool = False) -> Observed:
        """Return everything that a decision about ``run`` needs.

        With ``cached``, Jobs and pods may be as the watches have shown them last.

        Raises:
            ClusterError: the API server did not answer, or refused.
            AlreadyExists: an object that somebody else created has a name that the run needs.
        """
        self._heartbeats.expect(run.uid, RunKey(run.namespace, run.name))
        jobs, pods = await asyncio.gather(self._jobs(run, cached), self._pods(run, cached))
        if run.status.phase in TERMINAL:
            heartbeat = self._heartbeats.newest(run.uid)
            return Observed(jobs=jobs, pods=pods, storage=StorageView(heartbeat=heartbeat))
        used = any(pod.started for pod in read_pods(pods))
        fresh = (USED_SECONDS if used else UNUSED_SECONDS) if cached else 0.0
        secrets, access, config_map = await self._own_objects(run, fresh, cached)
        lookup = SecretLookup() if secrets is not None else await self._look_up_secrets(run)
        observed = Observed(
            notices=await self._notices(run, jobs, pods, cached),
            workloads=await self._workloads(run, jobs),
            jobs=jobs,
            pods=pods,
            has_secrets=secrets is not None,
            config_map=config_map,
            has_peers=await self._has_peers(run, fresh),
            has_access=access is not None,
            access_expires=expiry_of(access) if access is not None else None,
            secrets=lookup,
            storage=await self._storage(run, pods, cached),
            silent_seconds=self._silence.measure(
                run.uid,
                pods,
                self._heartbeats.newest(run.uid),
                self._heartbeats.unread_etag(run.uid),
            ),
            pull_failed_seconds=self._pull_failures.measure(run.uid, pods),
            source_phase=self._source_phase(run),
            namespace_budget=await self._usage.budget(run.namespace) if self._usage else None,
        )
        # Last: what is decided from it is noted before another pass reads it.
        return replace(observed, sweep=await self._sweeps.view(run))

    @property
    def storage_problem(self) -> str:
        """Why storage could not be read the last time; empty when it could."""
        return self._heartbeats.problem

    def note_launch(self, run: FlashRun) -> None:
        """Note that the first Job of ``run`` is about to be created."""
        self._sweeps.note_launch(run)

    def is_heard(self, uid: str) -> bool:
        """Return whether pods of a run still send heartbeats."""
        return self._heartbeats.is_fresh(uid)

    def wrote_own(self, run: FlashRun, kind: str, item: Object) -> None:
        """Remember an object of a run as the operator has just written it.

        ``item`` is a ConfigMap, or the metadata of another kind.
        """
        name = (item["metadata"] if kind == "ConfigMap" else item)["name"]
        self._own.note(run.uid, f"{kind} {name}", item)

    def forget_own(self, uid: str) -> None:
        """Forget which objects of a run exist: the operator is about to change them."""
        self._own.forget(uid)

    def forget(self, uid: str) -> None:
        """Drop the cached data of a run that has ended."""
        self._own.forget(uid)
        self._waiting_since.pop(uid, None)
        self._views.pop(uid, None)
        self._verdicts.pop(uid, None)
        self._silence.forget(uid)
        self._pull_failures.forget(uid)

    def forget_all_except(self, uids: AbstractSet[str]) -> None:
        """Forget all runs that are not in ``uids``; they were deleted."""
        for uid in {*self._views, *self._verdicts, *self._waiting_since} - uids:
            self.forget(uid)
        self._own.forget_all_except(uids)
        self._silence.forget_all_except(uids)
        self._pull_failures.forget_all_except(uids)

    # --- the API server -----------------------------------------------------------------------

    async def _jobs(self, run: FlashRun, cached: bool) -> tuple[Object, ...]:
        """Return the newest Jobs that the run owns, whoever created them."""
        pinned = run.status.resolved.job_uid if run.status.resolved is not None else ""

        def rank(job: Object) -> tuple[bool, str] | None:
            metadata = job["metadata"]
            owned = is_owned_by(metadata, run.uid)
            return (metadata["uid"] == pinned, metadata["creationTimestamp"]) if owned else None

        return await self._children("Job", run, JOBS_LIMIT, rank, cached)

    async def _pods(self, run: FlashRun, cached: bool) -> tuple[Object, ...]:
        """Return the newest pods of the run's Jobs, also of Jobs that were deleted."""

        def rank(pod: Object) -> str | None:
            metadata = pod["metadata"]
            return metadata["creationTimestamp"] if _is_of_a_job(metadata) else None

        return await self._children("Pod", run, PODS_LIMIT, rank, cached)

    async def _children(
        self,
        kind: str,
        run: FlashRun,
        limit: int,
        rank: Callable[[Object], Any],
        cached: bool,
    ) -> tuple[Object, ...]:
        """Return the objects of ``kind`` with the label of a run that have a rank."""
        if cached and self._cache is not None:
            known = self._cache.children(kind, run.namespace, run.uid)
            if known is not None:  # there are fewer than the limit
                return tuple(item for item in known if rank(item) is not None)
        labels = {names.RUN_UID_LABEL: run.uid}
        return await self._cluster.newest(kind, run.namespace, labels, limit, rank)

    async def _notices(
        self, run: FlashRun, jobs: tuple[Object, ...], pods: tuple[Object, ...], cached: bool
    ) -> dict[str, tuple[Notice, ...]]:
        """Return what Events say about the Job and the pods that wait; no decision needs them."""
        waiting = self._waiting(run, jobs, pods)
        try:
            async with asyncio.timeout(EVENTS_SECONDS):
                uids = [
                    uid
                    for uid, seconds in waiting.items()
                    if not cached or seconds >= WAITING_SECONDS
                ]
                return await self._events.read(run.namespace, uids, cached=cached)
        except (ClusterError, TimeoutError) as error:
            cause = str(error) or "events cannot be listed in time"
            log.warning("%s", cause)
        return {}

    async def _workloads(
        self, run: FlashRun, jobs: tuple[Object, ...]
    ) -> dict[str, QueuedWorkload]:
        """Return what Kueue holds about Jobs in its queues; without it, they wait all the same."""
        found: dict[str, QueuedWorkload] = {}
        try:
            for job in unfinished_jobs(jobs):
                if (queue := queue_of(job)) and (workload := await self._workload(run, job)):
                    position = None
                    if job["spec"].get("suspend"):
                        places = await self._queues.positions(run.namespace, queue)
                        position = places.get(workload["metadata"]["name"])
                    found[job["metadata"]["uid"]] = QueuedWorkload(workload, position)
        except ClusterError as error:
            log.warning("%s", error)
        return found

    async def _workload(self, run: FlashRun, job: Object) -> Object | None:
        """Return the newest Workload of a Job."""
        uid = job["metadata"]["uid"]

        def rank(workload: Object) -> str | None:
            metadata = workload["metadata"]
            created: str = metadata["creationTimestamp"]
            return created if is_owned_by(metadata, uid) else None

        labels = {names.QUEUED_JOB_LABEL: uid}
        newest = await self._cluster.newest("Workload", run.namespace, labels, 1, rank)
        return newest[0] if newest else None

    def _waiting(
        self, run: FlashRun, jobs: tuple[Object, ...], pods: tuple[Object, ...]
    ) -> dict[str, float]:
        """Return for how long this operator has seen the Job and the pods that wait do so."""
        now, before = self._clock(), self._waiting_since.get(run.uid, {})
        uids = waiting_objects(run, jobs, read_pods(pods))
        since = {uid: before.get(uid, now) for uid in uids}
        self._waiting_since[run.uid] = since
        return {uid: now - begun for uid, begun in since.items()}

    async def _own_objects(
        self, run: FlashRun, fresh: float, cached: bool
    ) -> tuple[Object | None, Object | None, Object | None]:
        """Return the metadata of the run's Secrets, and its ConfigMap.

        A run without pins has none of them yet. If it has, creating them is refused, and another
        pass reads them.
        """
        if cached and run.status.resolved is None:
            return None, None, None
        return await asyncio.gather(
            self._copied_secrets(run, fresh),
            self._own_metadata(run, "Secret", names.storage_secret_name(run.name, run.uid), fresh),
            self._spec_config_map(run, fresh),
        )

    async def _copied_secrets(self, run: FlashRun, fresh: float) -> Object | None:
        if not run.spec.names_secrets:
            return None
        name = names.secrets_name(run.name, run.uid)
        return await self._own_metadata(run, "Secret", name, fresh)

    async def _own_metadata(
        self, run: FlashRun, kind: str, name: str, fresh: float
    ) -> Object | None:
        async def read() -> Object | None:
            return await self._cluster.metadata(kind, run.namespace, name)

        metadata = await self._own.read(run.uid, f"{kind} {name}", read, fresh)
        if metadata is not None:
            _check_owner(run, kind, metadata)
        return metadata

    async def _spec_config_map(self, run: FlashRun, fresh: float) -> Object | None:
        """Return the ConfigMap that the newest Job names, whatever is in it."""
        pinned = run.status.resolved
        if pinned is None or not pinned.spec_digest:
            return None
        name = names.spec_config_map_name(run.name, run.uid, pinned.spec_digest)

        async def read() -> Object | None:
            return await self._read_config_map(run, name)

        return await self._own.read(run.uid, f"ConfigMap {name}", read, fresh)

    async def _read_config_map(self, run: FlashRun, name: str) -> Object | None:
        try:
            return await self._cluster.find("ConfigMap", run.namespace, name)
        except TooLarge:  # not as the operator wrote it: decisions need no more of it
            metadata = await self._cluster.metadata("ConfigMap", run.namespace, name)
            return None if metadata is None else {"metadata": metadata}

    async def _has_peers(self, run: FlashRun, fresh: float) -> bool:
        pinned = run.status.resolved
        if pinned is None or pinned.nodes == 1:
            return False
        name = names.peers_service_name(names.job_name(run.name, run.uid, pinned.job))
        return await self._own_metadata(run, "Service", name, fresh) is not None

    async def _look_up_secrets(self, run: FlashRun) -> SecretLookup:
        """Find, for each variable that the run names, the first Secret that has it."""
        sources: dict[str, str] = {}
        absent, unlabelled = [], []
        for ref in run.spec.secret_refs:
            secret = await self._cluster.secret_keys(run.namespace, ref.name)
            if secret is None:
                absent.append(ref.name)
                continue
            labels, keys = secret
            if labels.get(names.SECRETS_LABEL) != _TRUE:
                unlabelled.append(ref.name)
                continue
            named = keys & {*run.spec.environment.secrets, names.WANDB_API_KEY}
            sources = {**dict.fromkeys(named, ref.name), **sources}
        return SecretLookup(sources, tuple(absent), tuple(unlabelled))

    def _source_phase(self, run: FlashRun) -> str:
        """Return how far the run is whose adapter ``run`` begins with."""
        ref = run.spec.train.init_from_adapter
        if ref is None or self._cache is None:
            return ""
        return self._cache.phase(RunKey(run.namespace, names.parse_ref(ref).run))

    # --- storage ------------------------------------------------------------------------------

    async def _storage(self, run: FlashRun, pods: tuple[Object, ...], cached: bool) -> StorageView:
        """Return the run's files; while heartbeats cannot be read, do not wait for storage."""
        if self._heartbeats.problem:
            return StorageView(
                problem=self._heartbeats.problem, unsuitable=self._heartbeats.unsuitable
            )
        if cached and (known := self._view_in_memory(run, pods)) is not None:
            return known
        return await call_storage(self._storage_view, run, pods, cached)

    def _view_in_memory(self, run: FlashRun, pods: tuple[Object, ...]) -> StorageView | None:
        """Return the run's files if nothing has to be read; that needs no thread."""
        if self._mirror is not None and self._mirror.serves(run.spec.model):
            return None
        if run.spec.control.save_request or pinned_run(run) is None:
            return None
        heartbeat = self._heartbeats.newest(run.uid)
        known = self._fresh_view(run, heartbeat, read_pods(pods), cached=True)
        return self._as_heard(run, known.view, heartbeat) if known is not None else None

    def _storage_view(self, run: FlashRun, pods: tuple[Object, ...], cached: bool) -> StorageView:
        try:
            view = self._files_view(run, pods, cached)
            pinned = pinned_run(run)
            view = replace(view, mirrored_model=self._mirrored_model(run, pinned))
            if pinned is not None:
                return view
            ref = run.spec.train.init_from_adapter
            records = RunRecords(self._store)
            return replace(
                view,
                environment=self._environment(records, run, cached),
                adapter_source=_adapter_source(records, run.namespace, ref) if ref else None,
                refused=view.refused or records.refused,
                too_many_files=view.too_many_files or records.too_many_files,
            )
        except StoreError as error:
            return StorageView(problem=str(error))

    def _environment(
        self, records: RunRecords, run: FlashRun, cached: bool
    ) -> EnvironmentPointer | None:
        """Return the newest version of the run's environment, as of its creation or later.

        Many runs that are created at once share one answer. One from before the run was seen may
        lack what its user has pushed for it; so may one for a run that has waited, for a Secret
        or because it was suspended.
        """
        environment, since = run.spec.environment.id, None
        if cached and self._cache is not None and not run.status.observed_generation:
            since = self._cache.known_since(RunKey(run.namespace, run.name))
        known, now = self._pointers.get(environment), self._clock()
        if (
            known is not None
            and since is not None
            and since < known.asked_at > now - POINTER_SECONDS
        ):
            return known.pointer
        pointer = records.read(names.environment_latest_key(environment), EnvironmentPointer)
        if pointer is not None:
            if len(self._pointers) >= _POINTERS_LIMIT:
                self._pointers.clear()
            self._pointers[environment] = _ReadPointer(now, pointer)
        return pointer

    def _mirrored_model(self, run: FlashRun, pinned: ResolvedRun | None) -> MirrorAnswer | None:
        if self._mirror is None:
            return None
        return self._mirror.find(run.spec.model, pinned.model.revision if pinned else "")

    def _files_view(self, run: FlashRun, pods: tuple[Object, ...], cached: bool) -> StorageView:
        # Once for all of this look: a newer one may speak of files that it has not read.
        heartbeat, read = self._heartbeats.newest(run.uid), read_pods(pods)
        known = self._fresh_view(run, heartbeat, read, cached=cached)
        if known is None:
            mark, now = _mark(heartbeat, read), self._clock()
            view = StorageView() if cached and self._is_new(run) else self._read_files(run)
            known = self._views[run.uid] = _CachedView(mark, now, view)
        records = RunRecords(self._store)
        asked = not cached or run.spec.control.save_request
        control = (
            records.read(names.control_key(run.storage_prefix), TrainerControl) if asked else None
        )
        refused = known.view.refused or records.refused
        view = replace(known.view, control=control, refused=refused)
        return self._as_heard(run, view, heartbeat)

    def _as_heard(
        self, run: FlashRun, view: StorageView, heartbeat: Heartbeat | None
    ) -> StorageView:
        """Return ``view`` with the heartbeat of a run, or why it is ignored."""
        refused = self._heartbeats.refused(run.uid) or view.refused
        return replace(view, heartbeat=heartbeat, refused=refused)

    def _fresh_view(
        self, run: FlashRun, heartbeat: Heartbeat | None, pods: Sequence[Pod], *, cached: bool
    ) -> _CachedView | None:
        """Return the files of a run as last read, if they have not changed since."""
        known = self._views.get(run.uid)
        if known is None or known.mark != _mark(heartbeat, pods):
            return None
        if self._clock() - known.read_at >= FRESH_SECONDS:
            return None
        # Without a heartbeat, pods that have begun may have written something.
        quiet = heartbeat is not None or (cached and not any(pod.started for pod in pods))
        return known if quiet else None

    def _is_new(self, run: FlashRun) -> bool:
        """Return whether a run was created a moment ago, so that storage has nothing of it yet.

        Storage may know how an older run ended whose status somebody has removed. What another
        process has done for a run is from before this one began.
        """
        if run.created is None or run.status.observed_generation or run.status.resolved is not None:
            return False
        age = (datetime.now(UTC) - run.created).total_seconds()
        since = (run.created - self._began).total_seconds()
        # Before the clock says that it was created, a run is of any age: then storage is asked.
        return -NEW_SECONDS < age < (QUEUED_SECONDS if since > NEW_SECONDS else NEW_SECONDS)

    def _read_files(self, run: FlashRun) -> StorageView:
        known = self._verdicts.get(run.uid, {})
        records = RunRecords(self._store, known)
        try:
            view = _files_of(run, records)
        except StoreError:
            kept = known if len(known) <= MANIFESTS_LIMIT else {}
            self._verdicts[run.uid] = kept | records.verdicts  # the next look goes on from here
            raise
        self._verdicts[run.uid] = records.verdicts
        return view


def _mark(heartbeat: Heartbeat | None, pods: Sequence[Pod]) -> object:
    """Return what changes when the pods of a run may have written something."""
    # A pod in which the trainer has not begun has written nothing.
    phases = {pod.uid: (pod.phase, pod.active) for pod in pods if pod.started or not pod.active}
    return (heartbeat.attempt, heartbeat.commits, phases) if heartbeat else (None, phases)


def _files_of(run: FlashRun, records: RunRecords) -> StorageView:
    prefix, ending_key = run.storage_prefix, names.ending_key(run.namespace, run.name, run.uid)
    ending = records.read(ending_key, Ending)
    result_key, adapter_prefix = names.result_key(prefix), names.adapter_prefix(prefix)
    top, is_empty = set(), True
    own = names.run_record_key(prefix)
    for entry in records.list(prefix, recursive=False):
        is_empty = is_empty and entry.key == own  # the operator writes it before any pod
        if entry.key in (result_key, adapter_prefix):
            top.add(entry.key)
    if is_empty:
        return StorageView(ending=ending)
    result = records.read(result_key, Result) if result_key in top else None
    attempts = NewestAttempts(prefix)
    listing = attempts.pass_on(records.list(names.attempts_prefix(prefix)))
    return StorageView(
        ending=ending,
        result=with_shown_metrics(result) if result and result.run.uid == run.uid else None,
        checkpoints=records.checkpoints(prefix, run.uid, listed_checkpoints(prefix, listing)),
        claims=records.claims(attempts),
        adapter=_adapter(records, run) if adapter_prefix in top else None,
        refused=records.refused,
        too_many_files=records.too_many_files,
    )


def _adapter(records: RunRecords, run: FlashRun) -> CommitSummary | None:
    """Return the run's final adapter if it is committed."""
    place = names.adapter_prefix(run.storage_prefix)
    folder = listed_adapter(run.storage_prefix, records.list(place))
    return folder and records.commit(CommitMarker(place + names.MANIFEST, run.uid), folder)


def _adapter_source(records: RunRecords, namespace: str, text: str) -> AdapterSource | None:
    """Return the newest adapter of this name, also of a run that was deleted."""
    ref = names.parse_ref(text)
    sizes = records.sizes(_listing_of(records, namespace, ref))
    named = [
        marker
        for marker in find_markers_by_name(namespace, ref.run, sizes)
        if marker.step == ref.step
    ]
    named.sort(key=lambda marker: marker.attempt or 0, reverse=True)
    candidates = ((marker, records.manifest(marker, sizes[marker.key])) for marker in named)
    commit = newest_adapter(committed(candidates, sizes.get))
    if commit is None:
        return None
    marker = commit.marker
    pinned = ResolvedAdapter(ref=text, uid=marker.uid, prefix=marker.prefix)
    return AdapterSource(pinned, commit.manifest)


def _listing_of(records: RunRecords, namespace: str, ref: names.Ref) -> Iterator[Entry]:
    """Yield the files of the adapter, or of the checkpoint, of all runs that had this name."""
    for folder in records.list(names.run_name_prefix(namespace, ref.run), recursive=False):
        if ref.step is None:
            yield from records.list(names.adapter_prefix(folder.key))
            continue
        for entry in records.list(names.attempts_prefix(folder.key)):
            step_key = names.parse_step_key(folder.key, entry.key)
            if step_key is not None and step_key.step == ref.step:
                yield entry


def _is_of_a_job(metadata: Object) -> bool:
    owners = metadata.get("ownerReferences") or []
    return any(owner["kind"] == "Job" and owner.get("controller") for owner in owners)


def _check_owner(run: FlashRun, kind: str, metadata: Object) -> None:
    """Refuse an object that has the name of one of the run's own, but not the run as its owner."""
    if not is_owned_by(metadata, run.uid):
        name = metadata["name"]
        raise AlreadyExists(
            f"{kind} {name} in namespace {run.namespace} does not belong to run {run.name}, which "
            f"needs this name: delete it (kubectl delete {kind.lower()} {name})"
        )
