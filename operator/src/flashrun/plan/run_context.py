"""``RunContext``: everything that one reconcile pass knows about one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flashrun.api import names
from flashrun.api.catalog import Catalog, Model
from flashrun.api.platform import Platform, Pool
from flashrun.api.records import ResolvedRun, ResolvedTrain
from flashrun.api.resource import FlashRun, FlashRunStatus
from flashrun.plan import placement, run_status
from flashrun.plan.mirrored_models import MirrorAnswer
from flashrun.plan.pins import pinned_run
from flashrun.plan.pods import Attempt, Pod, current_pods, group_attempts, read_pods
from flashrun.plan.resolve import resolve_train
from flashrun.plan.types import Object, Observed, QueuedWorkload


@dataclass(frozen=True)
class RunContext:
    """What every policy reads."""

    run: FlashRun
    observed: Observed
    platform: Platform
    now: datetime
    pods: tuple[Pod, ...]
    status: FlashRunStatus
    """The observed status, before any policy has concluded something from it."""
    pinned: ResolvedRun | None
    """The resolved spec of a run that has begun, by spec and status; None before."""
    train: ResolvedTrain
    """The training values with all defaults: those that the run began or will begin with."""

    @property
    def job(self) -> Object | None:
        """The newest Job, by the uid that status has; the only one that may run pods."""
        resolved = self.run.status.resolved
        uid = resolved.job_uid if resolved is not None and self.pinned is not None else ""
        return next((job for job in self.observed.jobs if uid and _uid(job) == uid), None)

    @property
    def stray_jobs(self) -> tuple[Object, ...]:
        """Jobs that belong to the run, but that this operator does not know as its Jobs.

        A crash left one before its uid was written, an earlier version of the operator created it
        under another name, or somebody else did.
        """
        run, resolved, current = self.run, self.run.status.resolved, self.job
        newest = resolved.job if resolved is not None and self.pinned is not None else 0
        retired = {names.job_name(run.name, run.uid, number) for number in range(newest)}
        return tuple(
            job
            for job in self.observed.jobs
            if job is not current and job["metadata"]["name"] not in retired
        )

    @property
    def current_pods(self) -> tuple[Pod, ...]:
        """The pods that work together now, or were the last that did; the leader first."""
        return current_pods(self.pods)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All pods, grouped by the attempts they worked on."""
        return group_attempts(self.pods)

    @property
    def active(self) -> bool:
        """Whether a pod may still write to storage."""
        return any(pod.active for pod in self.pods)

    @property
    def catalog(self) -> Catalog:
        """The platform's catalog, and of mirrored models the one of this run."""
        answer = self.observed.storage.mirrored_model or MirrorAnswer()
        mirrored = (answer.model,) if answer.model is not None else ()
        refused = {self.run.spec.model: answer.refused} if answer.refused else {}
        return Catalog(self.platform.models, mirrored, refused)

    @property
    def model(self) -> Model | None:
        """The run's model, or None when neither the catalog nor the mirror offers it."""
        return self.catalog.get(self.run.spec.model)

    def find_placement(
        self, pools: Sequence[Pool] | None = None
    ) -> placement.Placement[Pool] | None:
        """Return the cheapest placement, or None; a run that has begun keeps its scale.

        ``pools`` are by default all of the platform.
        """
        model, pinned = self.model, self.pinned
        pools = self.platform.pools if pools is None else pools
        algorithm = self.run.spec.algorithm
        if model is None:
            return None
        if pinned is not None:
            return placement.placement_of_scale(pools, model.vram(algorithm), pinned.scale)
        return placement.choose_placement(pools, model, algorithm, self.train)

    def workload_of(self, job: Object | None) -> QueuedWorkload | None:
        """Return Kueue's Workload of a Job, or None."""
        return None if job is None else self.observed.workloads.get(_uid(job))

    def silence(self, pod: Pod) -> timedelta:
        """Return for how long ``pod`` has shown no sign of life.

        It is zero while storage cannot be read: a heartbeat may be there.
        """
        if self.observed.storage.problem:
            return timedelta(0)
        return timedelta(seconds=self.observed.silent_seconds.get(pod.uid, 0.0))


def build_context(
    run: FlashRun, observed: Observed, platform: Platform, now: datetime
) -> RunContext:
    """Return the context of one pass over a run that has not ended."""
    pods = read_pods(observed.pods)
    pinned = pinned_run(run)
    status = run_status.observed_status(run, observed, pods, platform, now, pinned is not None)
    train = pinned.train if pinned is not None else _train(run, observed)
    return RunContext(run, observed, platform, now, pods, status, pinned, train)


def _train(run: FlashRun, observed: Observed) -> ResolvedTrain:
    """Return the training values that a run will begin with."""
    source = observed.storage.adapter_source
    return resolve_train(run.spec, source.manifest if source is not None else None)


def _uid(job: Object) -> str:
    return str(job["metadata"].get("uid", ""))
