"""One pass over one run: parse, observe, decide, act, report.

The order of the writes makes a crash at any point harmless: what a pod needs exists before its Job,
and so does what the Job is created from, in the status or in storage. In other passes the status is
written last. It is written once, as a whole. A pass with nothing to do writes nothing.

The first pass over a run that gets its Job at once leaves the status to the next one, a moment
later, which has the uid of the Job and knows of its pods: one write in place of two. Until then the
status is in memory, and what was chosen in storage.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from pydantic import ValidationError

from flashrun.api import names
from flashrun.api.base import error_sentences
from flashrun.api.platform import Platform
from flashrun.api.reasons import TERMINAL
from flashrun.api.records import Claim, Ending, RunIdentity, StorageAccess
from flashrun.api.resource import FlashRun, FlashRunStatus
from flashrun.api.run_record import RunRecord
from flashrun.api.times import parse_time
from flashrun.cluster import Cluster
from flashrun.cluster_errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
)
from flashrun.controller import json_logs, operator_metrics
from flashrun.controller.all_of import all_of
from flashrun.controller.events import EventPoster, Subject
from flashrun.controller.known_runs import KnownRuns
from flashrun.controller.lease import NotLeading
from flashrun.controller.namespace_usage import NamespaceUsage
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.observe import JOBS_LIMIT, Observer
from flashrun.controller.pass_errors import explain_error
from flashrun.controller.queue import Promised, RunKey
from flashrun.controller.run_copies import RunCopies
from flashrun.controller.run_metrics import RunMetrics
from flashrun.controller.run_traces import RunTraces
from flashrun.controller.status_writer import StatusWriter
from flashrun.controller.storage_access import AccessIssuer
from flashrun.controller.storage_threads import call_storage
from flashrun.plan.blocked_runs import (
    blocked_status,
    unissued_access,
    unnoted,
    unreadable_spec,
    unrecorded_ending,
    with_old_access,
)
from flashrun.plan.confirmed_decisions import needs_confirmation
from flashrun.plan.credentials import access_secret
from flashrun.plan.decide import decide
from flashrun.plan.decisions import RECHECK_SECONDS
from flashrun.plan.deletions import deleted_status, unfinished_deletion
from flashrun.plan.endings import ending_of, ending_of_deleted, identity_of, identity_of_run
from flashrun.plan.gpu_time import GpuTime, used_until
from flashrun.plan.objects import is_owned_by
from flashrun.plan.pods import read_pod
from flashrun.plan.policies.lost_node import lost_pod_status
from flashrun.plan.run_status import with_access_expiry, with_pinned_job
from flashrun.plan.types import (
    AccessGrant,
    Decision,
    Object,
    RunEvent,
    SecretCopy,
    StorageView,
)
from flashrun.store import Store
from flashrun.store_errors import Corrupt, KeyExists, StoreError

log = logging.getLogger(__name__)


UNWRITTEN_SECONDS: Final = 1.0
"""After how long a pass is due that writes the status which another one has left to it."""
REPORT_SECONDS: Final = 10.0
"""Longest time to write why a pass ended; the API server may be the reason."""
_BLOCKED_FIELDS: Final = frozenset({"observedGeneration", "phase", "conditions", "pending"})


class _Unconfirmed(Exception):
    """Ends a pass whose decision needs a state that was read from the API server itself."""


class _Blocked(Exception):
    """Ends a pass because of ``error``; ``status`` explains it better than the error alone does."""

    def __init__(self, error: StoreError, status: FlashRunStatus) -> None:
        super().__init__(str(error))
        self.error, self.status = error, status


class Reconciler:
    """Makes passes over runs: it carries out decisions and reports them."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        issuer: AccessIssuer,
        observer: Observer,
        known: KnownRuns,
        poster: EventPoster,
        platform: Platform,
        leading: Callable[[], bool],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        cache: ObjectCache | None = None,
        metrics: RunMetrics | None = None,
        usage: NamespaceUsage | None = None,
        traces: RunTraces | None = None,
    ) -> None:
        self._usage = usage or NamespaceUsage(cluster, store, {})
        self._cluster = cluster.checking_writes(self._check_leading)
        self._store, self._observer = store, observer
        self._known, self._records = known, RunCopies(store)
        self._poster, self._cache = poster, cache
        self._metrics = metrics or RunMetrics()
        self._traces = traces or RunTraces(store, None)
        self._platform, self._issuer = platform, issuer
        self._leading, self._clock = leading, clock
        self._unpinned_jobs: dict[str, str] = {}
        """Uid of a run → uid of the Job that this process created, and has not pinned yet."""
        self._statuses_fail = False
        """Whether the API server has refused the last status, of whatever run."""
        self._unwritten: dict[RunKey, tuple[str, FlashRunStatus]] = {}
        """Run → its uid, and the status that a pass has left to the next one, which always comes.
        """

    async def handle(self, key: RunKey) -> float | None:
        """Make a pass and log its error; return the seconds until the next one is due, or None."""
        with json_logs.about(f"{key.namespace}/{key.name}"):
            try:
                with operator_metrics.PASSES.time():
                    return await self.reconcile(key)
            except (ClusterError, StoreError) as error:
                operator_metrics.FAILED_PASSES.labels(type(error).__name__).inc()
                log.warning("%s", error)
                raise
            except Exception as error:
                operator_metrics.FAILED_PASSES.labels(type(error).__name__).inc()
                log.exception("a pass failed")
                raise

    async def reconcile(self, key: RunKey) -> float | None:
        """Make a pass over one run; return the seconds until the next one is due, or None.

        What the watches have shown is enough for most passes. What ends something, and what the API
        server refuses, is looked at again with what the API server has.
        """
        if self._cache is not None:
            with contextlib.suppress(_Unconfirmed):
                return await self._reconcile(key, cached=True)
        return await self._reconcile(key, cached=False)

    async def _reconcile(self, key: RunKey, *, cached: bool) -> float | None:
        try:
            manifest = await self._find(key, cached)
        except TooLarge as error:
            await self._report_too_large(key, error)
            return None
        if manifest is None:
            self._metrics.forget(key)
            self._unwritten.pop(key, None)
            return None  # owner references clean up without the operator
        json_logs.note_uid(manifest["metadata"]["uid"])
        if "deletionTimestamp" in manifest["metadata"]:
            if cached:
                raise _Unconfirmed
            return await self._pass_over_deleted(key, manifest)
        try:
            run = FlashRun.from_manifest(manifest)
        except ValidationError as error:
            await self._report_unreadable(key, manifest, error)
            return None
        writer = StatusWriter(self._cluster, manifest, self._cache)
        try:
            return await self._pass_over(run, writer, cached)
        except (NotLeading, _Unconfirmed):
            raise  # another replica writes the status, or another pass follows at once
        except _Blocked as blocked:
            await self._report_blocked(run, writer, blocked.status)
            raise blocked.error from None
        except Exception as error:
            if cached and isinstance(error, Conflict | AlreadyExists | NotFound):
                raise _Unconfirmed from error  # something has changed a moment ago
            if isinstance(error, Conflict):
                raise  # the next pass sees what has changed
            reason, message = explain_error(error)
            status = blocked_status(run, reason, message, self._clock())
            await self._report_blocked(run, writer, status)
            raise

    async def _find(self, key: RunKey, cached: bool) -> Object | None:
        if cached and self._cache is not None and (known := self._cache.run(key)) is not None:
            return known
        return await self._cluster.find(names.KIND, key.namespace, key.name)

    async def _pass_over(self, run: FlashRun, writer: StatusWriter, cached: bool) -> float | None:
        seen, problem = await self._with_choices(run)
        seen = with_pinned_job(seen, self._unpinned_jobs.get(run.uid, ""))
        observed = await self._observer.read(seen, cached=cached)
        if problem and not observed.storage.problem:
            observed = replace(observed, storage=StorageView(problem=problem))
        decision = decide(seen, observed, self._platform, self._clock())
        if cached and needs_confirmation(seen, decision):
            raise _Unconfirmed
        if any(manifest["kind"] == "Job" for manifest in decision.apply):
            self._observer.note_launch(run)
        noting = run.status.phase not in TERMINAL and not observed.storage.problem
        later = cached and noting and self._may_be_written_later(seen, decision)
        issued: tuple[Decision, StorageAccess | None]
        issued, _ = await all_of(
            self._issue_access(run, decision),
            self._note(run, decision) if noting and not later else None,
        )
        decision, access = issued
        try:
            await self._carry_out(run, writer, decision, access, later=later)
            if later:
                self._unwritten[_key(run)] = (run.uid, decision.status)
                self._post_events(run, decision)
                return Promised(UNWRITTEN_SECONDS)
            await self._report(run, writer, decision)
        finally:  # also of what is pinned before something is refused
            if writer.written is not None:
                self._traces.note(run, writer.written, observed)
        return decision.requeue_seconds

    async def _with_choices(self, run: FlashRun) -> tuple[FlashRun, str]:
        """Return a run with what was chosen for it and its status does not say yet.

        With it comes what is wrong with storage, if that cannot be read. While that is known, no
        pass waits for storage.
        """
        if run.status.resolved is not None or run.status.phase in TERMINAL:
            return run, ""
        uid, unwritten = self._unwritten.get(_key(run), ("", run.status))
        if uid == run.uid:
            return run.replace(status=unwritten), ""
        if problem := self._observer.storage_problem:
            return run, problem
        if not self._known.may_have_choices(run):
            return run, ""
        try:
            chosen = await call_storage(self._known.choices, run)
        except StoreError as error:
            return run, str(error)
        return run.replace(status=run.status.replace(resolved=chosen)) if chosen else run, ""

    def _may_be_written_later(self, run: FlashRun, decision: Decision) -> bool:
        """Return whether a run gets its Job at first sight, so that the next pass comes at once.

        What is chosen can be noted only with a run that storage does not know yet. While no status
        can be written, nothing begins that nobody sees.
        """
        if self._statuses_fail:
            return False
        status = run.status
        first = not status.observed_generation and status.resolved is None
        begins = any(manifest["kind"] == "Job" for manifest in decision.apply)
        return first and begins and not self._known.has_noted(identity_of_run(run))

    async def _pass_over_deleted(self, key: RunKey, manifest: Object) -> float | None:
        """End a run that is being deleted and that finalizers still hold, and say so in its status.

        Returns the seconds until the next pass while pods of it are left.
        """
        metadata = manifest["metadata"]
        finalizers = metadata.get("finalizers") or []
        writer = StatusWriter(self._cluster, manifest, self._cache)
        try:
            run = FlashRun.from_manifest(manifest)
        except ValidationError:
            run = None  # it ends all the same
        try:
            ended = await self._end_deleted(key, metadata["uid"])
            used = used_until(manifest, self._clock())
            await call_storage(self._record_deleted, identity_of(manifest), used)
            if run is not None:
                status = deleted_status(run, finalizers, self._clock(), ended=ended)
                if status != run.status:
                    with contextlib.suppress(NotFound):  # it may be gone any moment
                        await writer.write(status.to_patch())
        except NotLeading:
            raise
        except Exception as error:
            if run is not None:
                reason, message = explain_error(error)
                status = unfinished_deletion(run, finalizers, reason, message, self._clock())
                await self._report_blocked(run, writer, status)
            raise
        return None if ended else RECHECK_SECONDS

    async def _end_deleted(self, key: RunKey, uid: str) -> bool:
        """Delete the Jobs of a run that is being deleted; return whether all its pods are gone.

        Owner references delete them only when the run itself is gone.
        """
        labels = {names.RUN_UID_LABEL: uid}

        def rank_job(job: Object) -> bool | None:
            metadata = job["metadata"]
            live = is_owned_by(metadata, uid) and "deletionTimestamp" not in metadata
            return True if live else None

        def rank_pod(pod: Object) -> bool | None:
            return True if read_pod(pod).active else None

        jobs = await self._cluster.newest("Job", key.namespace, labels, JOBS_LIMIT, rank_job)
        for metadata in (job["metadata"] for job in jobs):
            self._check_leading()
            name = metadata["name"]
            await self._cluster.delete("Job", key.namespace, name, uid=metadata["uid"])
        return not await self._cluster.newest("Pod", key.namespace, labels, 1, rank_pod)

    async def _note(self, run: FlashRun, decision: Decision, *, with_choices: bool = False) -> None:
        """Remember in storage that the run exists, at the latest before it gets a Job.

        ``with_choices`` remembers what was chosen for it, too.

        Raises:
            _Blocked: storage does not take it, and the run would get a Job.
        """
        self._check_leading()
        begins = any(manifest["kind"] == "Job" for manifest in decision.apply)
        identity = identity_of_run(run)
        try:
            used = decision.status.gpu_seconds != run.status.gpu_seconds
            noted = self._known.has_noted(identity)
            record = RunRecord.of(run, decision.status) if with_choices else None
            await all_of(
                None if noted else call_storage(self._known.note, identity, record),
                call_storage(self._records.write, run, decision.status)
                if begins or used or not noted
                else None,
            )
        except StoreError as error:
            if begins:
                raise _Blocked(error, unnoted(run, str(error), self._clock())) from error
            log.warning("%s", error)

    # --- act ----------------------------------------------------------------------------------

    async def _carry_out(
        self,
        run: FlashRun,
        writer: StatusWriter,
        decision: Decision,
        access: StorageAccess | None,
        *,
        later: bool,
    ) -> None:
        """Do everything but the report.

        What the pods of a Job need is written at the same time, and exists before the Job. What it
        is created from is pinned before, too, or noted in storage where the status is written
        ``later``: a crash leaves nothing that is known nowhere.
        """
        if decision.secrets or access or decision.apply or decision.delete:
            self._observer.forget_own(run.uid)
        jobs = [manifest for manifest in decision.apply if manifest["kind"] == "Job"]
        copy, grant = decision.secrets, decision.access
        await all_of(
            self._note(run, decision, with_choices=True) if later else None,
            self._pin(run, writer, decision.status) if jobs and not later else None,
            self._copy_secrets(run, copy) if copy is not None else None,
            self._write_access(run, grant, access) if grant and access else None,
            *(self._create(run, manifest) for manifest in decision.apply if manifest not in jobs),
        )
        for manifest in jobs:
            self._check_leading()
            job = await self._cluster.create(manifest)
            self._wrote("Job", run, job["metadata"])
            self._unpinned_jobs[run.uid] = job["metadata"]["uid"]
        for patch in decision.patch:
            self._check_leading()
            metadata = await self._cluster.patch(patch.kind, run.namespace, patch.name, patch.body)
            self._wrote(patch.kind, run, metadata)
        if decision.supersede is not None:
            await call_storage(self._supersede, run, decision.supersede)
        for item in decision.delete:
            self._check_leading()
            if item.force:
                await self._remove_lost_pod(run.namespace, item.name)
            else:
                grace = item.grace_seconds
                await self._cluster.delete(item.kind, run.namespace, item.name, grace_seconds=grace)
        if decision.control is not None:
            key = names.control_key(run.storage_prefix)
            await call_storage(self._store.put_json, key, decision.control)
        if decision.delete_keys:
            await call_storage(self._store.delete, decision.delete_keys)

    async def _pin(self, run: FlashRun, writer: StatusWriter, status: FlashRunStatus) -> None:
        """Write what was chosen for a run before it takes effect.

        The rest of the status is written with it: only the uid of the Job is left for the next
        pass, which the Job itself asks for.
        """
        if status.resolved != run.status.resolved:
            await self._write_status(run, writer, status)

    async def _copy_secrets(self, run: FlashRun, copy: SecretCopy) -> None:
        self._check_leading()
        metadata = await self._cluster.copy_keys(copy.metadata, copy.sources)
        self._observer.wrote_own(run, "Secret", metadata)

    async def _create(self, run: FlashRun, manifest: Object) -> None:
        """Create what pods need, which costs the API server less than applying it.

        What exists already is from a process that ended before it could pin the run.
        """
        self._check_leading()
        try:
            metadata = (await self._cluster.create(manifest))["metadata"]
        except AlreadyExists:
            metadata = await self._cluster.apply(manifest)
        is_config_map = manifest["kind"] == "ConfigMap"
        item = {**manifest, "metadata": metadata} if is_config_map else metadata
        self._observer.wrote_own(run, manifest["kind"], item)

    def _wrote(self, kind: str, run: FlashRun, metadata: Object) -> None:
        if self._cache is not None:
            self._cache.wrote(kind, run.namespace, run.uid, metadata)

    async def _issue_access(
        self, run: FlashRun, decision: Decision
    ) -> tuple[Decision, StorageAccess | None]:
        """Issue credentials for storage if any are due; return the decision with what became of it.

        Where storage issues none, the rest of the pass goes on, unless a Job would be created
        whose pods cannot start without them.

        Raises:
            _Blocked: storage issued no credentials, and a new Job needs them.
        """
        grant = decision.access
        if grant is None:
            return decision, None
        try:
            access = await call_storage(self._issuer.issue, grant)
        except StoreError as error:
            log.warning("%s", error)
            message, now = str(error), self._clock()
            if not grant.renewal and any(item["kind"] == "Job" for item in decision.apply):
                raise _Blocked(error, unissued_access(run, message, now)) from error
            status = with_old_access(decision.status, run, message, now)
            return replace(decision, status=status), None
        return with_access_expiry(decision, access.expires), access

    async def _write_access(self, run: FlashRun, grant: AccessGrant, access: StorageAccess) -> None:
        """Write new credentials; raises ``AlreadyExists`` if there are some that the pass lacks."""
        self._check_leading()
        write = self._cluster.put_secret if grant.renewal else self._cluster.create_secret
        metadata = await write(*access_secret(grant.metadata, access))
        self._observer.wrote_own(run, "Secret", metadata)

    async def _remove_lost_pod(self, namespace: str, name: str) -> None:
        """Mark a pod as failed in place of its lost kubelet, then delete it.

        The Job waits for a pod until it has ended, and the kubelet cannot report that.
        """
        pod = await self._cluster.find("Pod", namespace, name)
        if pod is None:
            return
        status = lost_pod_status(pod, self._clock())
        await self._cluster.patch_status("Pod", namespace, name, status)
        uid = pod["metadata"]["uid"]
        await self._cluster.delete("Pod", namespace, name, uid=uid, grace_seconds=0)

    def _supersede(self, run: FlashRun, attempt: int) -> None:
        """Mark the claim of an attempt as superseded, so that its pod can commit nothing more."""
        key = names.claim_key(run.storage_prefix, attempt)
        claim = self._store.get_json(key, Claim)
        if not claim.superseded:
            self._check_leading()
            self._store.put_json(key, claim.replace(superseded=True))

    def _check_leading(self) -> None:
        if not self._leading():
            raise NotLeading("this replica does not hold the lease")

    # --- report -------------------------------------------------------------------------------

    async def _report(self, run: FlashRun, writer: StatusWriter, decision: Decision) -> None:
        if decision.status.phase in TERMINAL and run.status.phase not in TERMINAL:
            await self._record_ending(run, decision.status)
        if decision.status != (writer.written or run.status):
            await self._write_status(run, writer, decision.status)
        resolved = decision.status.resolved
        if resolved is None or resolved.job_uid == self._unpinned_jobs.get(run.uid):
            self._unpinned_jobs.pop(run.uid, None)
        self._unwritten.pop(_key(run), None)
        self._metrics.show(run, decision.status)
        self._post_events(run, decision)
        if decision.status.phase in TERMINAL:
            self._observer.forget(run.uid)
            if run.status.phase not in TERMINAL:
                await call_storage(self._forget, identity_of_run(run))

    def _post_events(self, run: FlashRun, decision: Decision) -> None:
        for event in decision.events:
            self._poster.add(Subject.of(run), event, self._clock())

    async def _write_status(
        self, run: FlashRun, writer: StatusWriter, status: FlashRunStatus
    ) -> None:
        try:
            await writer.write(status.to_patch())
        except (Conflict, NotFound):  # of this run alone
            raise
        except ClusterError:
            self._statuses_fail = True
            raise
        self._statuses_fail = False
        writer.written = status
        self._usage.note(run, status)
        self._metrics.written(run, status)

    def record_deletion(self, manifest: Object) -> None:
        """Record that a run was deleted, unless it had ended before; any thread may call this.

        If storage does not take the record, the next resync misses the run.
        """
        run = identity_of(manifest)
        self._metrics.forget(RunKey(run.namespace, run.name))
        if not self._leading():
            return
        with json_logs.about(f"{run.namespace}/{run.name}", run.uid):
            try:
                self._record_deleted(run, used_until(manifest, self._clock()))
            except StoreError as error:  # the next resync misses the run
                log.warning("the deletion of a run is not recorded yet: %s", error)

    def _record_deleted(self, run: RunIdentity, used: GpuTime) -> None:
        """Record that a run was deleted, unless it had ended before; raises ``StoreError``."""
        self._check_leading()
        self._end_as_deleted(run, used)
        self._forget(run)

    def _end_as_deleted(self, run: RunIdentity, used: GpuTime | None = None) -> None:
        self._unpinned_jobs.pop(run.uid, None)
        ending = self._create_ending(ending_of_deleted(run, self._clock(), used or GpuTime()))
        self._usage.end(ending)
        self._records.close(ending)

    def record_missed_deletion(self, run: RunIdentity) -> None:
        """Record that a run was deleted while no operator watched; raises ``StoreError``."""
        self._end_as_deleted(run)
        self._known.forget(run)

    def record_missed_deletions(
        self, known: Iterable[RunIdentity], uids: AbstractSet[str], namespaces: Iterable[str]
    ) -> None:
        """Record the deletion of each run of ``known`` in ``namespaces`` that is not in ``uids``.

        ``known`` was read before the runs of these namespaces were listed. While a heartbeat still
        comes, the pods of a run have not ended, and a later call records it.

        Raises:
            StoreError: storage cannot be written; the next call tries again.
        """
        served = set(namespaces)
        for run in known:
            if run.namespace not in served or run.uid in uids or self._observer.is_heard(run.uid):
                continue
            self.record_missed_deletion(run)

    def _forget(self, run: RunIdentity) -> None:
        """Forget a run whose end is recorded; if storage fails, the next resync does it."""
        with contextlib.suppress(StoreError):
            self._known.forget(run)

    async def _record_ending(self, run: FlashRun, status: FlashRunStatus) -> None:
        """Record how a run ended before its status says so; raises ``_Blocked``."""
        self._check_leading()
        try:
            ending = ending_of(run, status, self._clock())
            await call_storage(self._create_ending, ending)
            await call_storage(self._records.write, run, status)
        except StoreError as error:
            status = unrecorded_ending(run, str(error), self._clock())
            raise _Blocked(error, status) from error

    def _create_ending(self, ending: Ending) -> Ending:
        """Record an end, and return the record that counts: the first one."""
        run = ending.run
        key = names.ending_key(run.namespace, run.name, run.uid)
        try:
            self._store.create_json(key, ending)
        except KeyExists:
            with contextlib.suppress(Corrupt):
                return self._store.get_json(key, Ending)
        return ending

    async def _report_blocked(
        self, run: FlashRun, writer: StatusWriter, status: FlashRunStatus
    ) -> None:
        """Write to the run why this pass cannot act on it; the next pass tries again.

        Only what says why is written: what the pass has pinned before stays. If the status cannot
        be written either, an Event says why.
        """
        if status == (writer.written or run.status) or run.status.phase in TERMINAL:
            return
        patch = {key: value for key, value in status.to_patch().items() if key in _BLOCKED_FIELDS}
        pending = status.pending
        assert pending is not None  # every status of a blocked run has a sentence
        event = RunEvent(pending.reason, pending.message, warning=True)
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                try:
                    await writer.write(patch)
                except (Forbidden, Invalid) as error:
                    log.warning("%s", error)
                    self._poster.add(Subject.of(run), event, self._clock())
        except (ClusterError, TimeoutError) as error:
            log.warning("the status is not written: %s", error or "no answer in time")

    async def _report_unreadable(
        self, key: RunKey, manifest: Object, error: ValidationError
    ) -> None:
        """Write to a run that its spec cannot be read, once."""
        problems = error_sentences(error, prefix="spec.", whole="spec")
        await self._report_problems(key, manifest, problems, self._clock())

    async def _report_too_large(self, key: RunKey, error: TooLarge) -> None:
        """Write to a run that its spec is too large to be read, once.

        Where even its status cannot be read, it is written as of the run's creation: it is the same
        in every pass, and the API server changes nothing.
        """
        manifest, now = error.known, self._clock()
        if manifest is None:
            metadata = await self._cluster.metadata(names.KIND, key.namespace, key.name)
            if metadata is None:
                return
            manifest, now = {"metadata": metadata}, parse_time(metadata["creationTimestamp"])
        if "deletionTimestamp" in manifest["metadata"]:
            await self._end_deleted(key, manifest["metadata"]["uid"])
            used = used_until(manifest, self._clock())
            await call_storage(self._record_deleted, identity_of(manifest), used)
            return
        problem = f"spec: {error}; data belongs in the environment's package"
        await self._report_problems(key, manifest, [problem], now)

    async def _report_problems(
        self, key: RunKey, manifest: Object, problems: Iterable[str], now: datetime
    ) -> None:
        status = unreadable_spec(manifest, problems, now)
        if status is None:
            return
        message = status["pending"]["message"]
        log.warning("%s", message)
        await StatusWriter(self._cluster, manifest, self._cache).write(status)


def _key(run: FlashRun) -> RunKey:
    return RunKey(run.namespace, run.name)
