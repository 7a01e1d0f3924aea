"""``RunContext``: everything that one reconcile pass knows about one run."""

from dataclasses import dataclass
from datetime import datetime

from flashrun.api.catalog import Catalog, Model
from flashrun.api.platform import Platform, Pool
from flashrun.api.reasons import ConditionType
from flashrun.api.records import ResolvedTrain
from flashrun.api.resource import FlashRun, FlashRunStatus
from flashrun.plan import objects, placement
from flashrun.plan.pods import Attempt, Pod, current_pods, group_attempts
from flashrun.plan.types import Object, Observed


@dataclass(frozen=True)
class RunContext:
    """What every policy reads; policies change nothing in it."""

    run: FlashRun
    observed: Observed
    platform: Platform
    now: datetime
    pods: tuple[Pod, ...]
    status: FlashRunStatus
    """The observed status, before any policy has concluded something from it."""
    train: ResolvedTrain
    """The training values with all defaults: those that the run began or will begin with."""

    @property
    def job(self) -> Object | None:
        """The newest Job, which is the only one that may run pods."""
        return max(self.observed.jobs, key=objects.job_number, default=None)

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
    def model(self) -> Model | None:
        """The run's model in the platform's catalog, or None when the catalog lacks it."""
        return Catalog(self.platform.models).get(self.run.spec.model)

    def place(self) -> placement.Placement[Pool] | None:
        """Return the cheapest placement, or None; a run that has begun keeps its scale."""
        model, pools, pinned = self.model, self.platform.pools, self.observed.resolved
        algorithm = self.run.spec.algorithm
        if model is None:
            return None
        if pinned is not None:
            return placement.placement_of_scale(pools, model.vram(algorithm), pinned.scale)
        return placement.choose_placement(pools, model, algorithm, self.train)

    def last_sign_of_life(self, pod: Pod) -> datetime:
        """Return when ``pod`` last showed a sign of life.

        While storage cannot be read this is ``now``: a heartbeat may be there.
        """
        heartbeat = self.observed.storage.heartbeat
        synced = self.status.condition(ConditionType.CHECKPOINTS_SYNCED)
        if self.observed.storage.problem:
            return self.now
        signs = (
            pod.started or pod.created,
            heartbeat.updated
            if heartbeat is not None and heartbeat.pod == pod.name
            else pod.created,
            synced.last_transition_time if synced is not None else pod.created,
        )
        return max(signs)
