"""What a decision reads, and what it returns.

``Observed`` is everything that one pass has read about a run, from the API server and from storage;
``Decision`` is everything that the pass does next. Neither holds the values of secrets: a decision
names the Secrets to copy from and to, and ``cluster`` copies them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flashrun.api.reasons import AnyReason, Reason
from flashrun.api.records import (
    Claim,
    Ending,
    EnvironmentPointer,
    Heartbeat,
    Manifest,
    ResolvedAdapter,
    Result,
    TrainerControl,
)
from flashrun.api.resource import FlashRunStatus
from flashrun.plan.budgets import NamespaceBudget
from flashrun.plan.commits import CommitSummary
from flashrun.plan.mirrored_models import MirrorAnswer
from flashrun.plan.sweep_members import SweepMember

Object = dict[str, Any]
"""A Kubernetes object as plain data."""


@dataclass(frozen=True)
class SecretLookup:
    """Which Secrets hold the values that a run lists; only names are in here."""

    sources: Mapping[str, str] = field(default_factory=dict)
    """Name of the variable → name of the Secret that holds it."""
    absent: tuple[str, ...] = ()
    """Secrets named in ``secretRefs`` that do not exist."""
    unlabelled: tuple[str, ...] = ()
    """Secrets named in ``secretRefs`` that are not marked for use by runs."""


@dataclass(frozen=True)
class AdapterSource:
    """The adapter that ``init_from_adapter`` resolved to."""

    pinned: ResolvedAdapter
    manifest: Manifest


@dataclass(frozen=True)
class StorageView:
    """What storage holds of a run; it stays in memory, and its size is bounded."""

    problem: str = ""
    """One sentence when storage could not be read; the rest is then empty."""
    unsuitable: bool = False
    """Whether it is the problem that storage lacks something that runs need."""
    environment: EnvironmentPointer | None = None
    """Looked up only while status pins nothing."""
    adapter_source: AdapterSource | None = None
    """Looked up only while status pins nothing."""
    mirrored_model: MirrorAnswer | None = None
    """Looked up only for models without an entry in the catalog, if the platform serves these; of a
    run that has begun, the revision that is pinned."""
    control: TrainerControl | None = None
    refused: str = ""
    """One sentence about the first record of the run that is outside its bounds; it is ignored."""
    too_many_files: str = ""
    """One sentence when the run has more files than are read; the rest is ignored."""
    heartbeat: Heartbeat | None = None
    result: Result | None = None
    ending: Ending | None = None
    """What the operator itself recorded when the run ended."""
    claims: tuple[Claim, ...] = ()
    checkpoints: tuple[CommitSummary, ...] = ()
    """Committed checkpoints, by step; of one step in several attempts, the newest attempt's."""
    adapter: CommitSummary | None = None

    @property
    def problem_reason(self) -> Reason:
        """The reason of a condition that shows ``problem``."""
        return Reason.STORAGE_UNSUITABLE if self.unsuitable else Reason.STORAGE_UNAVAILABLE


@dataclass(frozen=True)
class Notice:
    """A sentence of another program about an object of the run, from an Event."""

    reason: str
    message: str
    """One sentence, within bounds and without secrets."""
    source: str
    """The program, such as ``kubelet``."""
    warning: bool
    time: datetime


@dataclass(frozen=True)
class QueuedWorkload:
    """What Kueue holds about a Job."""

    workload: Object
    position: int | None = None
    """Its place in the queue, counted from 1; None: not known, or it does not wait."""


@dataclass(frozen=True)
class SweepView:
    """The runs of a sweep."""

    members: tuple[SweepMember, ...] = ()
    launched: frozenset[str] = frozenset()
    """Uids of runs that this operator has just started; ``members`` may not show it yet."""


@dataclass(frozen=True)
class Observed:
    """Everything that one pass has read about a run."""

    jobs: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    has_secrets: bool = False
    """Whether the Secret with the values that the run lists exists; one that lists none has none.
    """
    config_map: Object | None = None
    """The ConfigMap with the resolved spec of the newest Job, as it is; it decides nothing."""
    has_peers: bool = False
    """Whether the Service of a newest Job on several nodes exists, by which its pods meet."""
    has_access: bool = False
    """Whether the Secret with its credentials for storage exists."""
    access_expires: datetime | None = None
    """When the credentials in it expire; None: never."""
    secrets: SecretLookup = SecretLookup()
    silent_seconds: Mapping[str, float] = field(default_factory=dict)
    """Uid of a pod → seconds since the operator received its last sign of life.

    They are measured by the operator's monotonic clock, from its start on, and only while it can
    read heartbeats.
    """
    pull_failed_seconds: Mapping[str, float] = field(default_factory=dict)
    """Uid of a pod whose image cannot be pulled → seconds since the operator first saw that."""
    notices: Mapping[str, tuple[Notice, ...]] = field(default_factory=dict)
    """Uid of a Job or pod that waits → what other programs report about it, the newest first."""
    workloads: Mapping[str, QueuedWorkload] = field(default_factory=dict)
    """Uid of a Job that waits in a queue of Kueue, or runs from one → its Workload."""
    source_phase: str = ""
    """Phase of the run in ``init_from_adapter``; empty without a status or a run."""
    sweep: SweepView | None = None
    """The runs of the sweep that it belongs to, where a decision needs them."""
    namespace_budget: NamespaceBudget | None = None
    """The GPU hours of the run's namespace; None: it has no limit."""
    storage: StorageView = StorageView()


@dataclass(frozen=True)
class SecretCopy:
    """Create the immutable Secret ``metadata.name`` from the keys in ``sources``."""

    metadata: Object
    sources: Mapping[str, str]


@dataclass(frozen=True)
class AccessGrant:
    """Create or renew a Secret with S3 credentials that ``policy`` limits."""

    metadata: Object
    policy: Object
    seconds: int
    renewal: bool = False
    """Whether credentials exist already, which go on to work until they expire."""


@dataclass(frozen=True)
class Patch:
    """A merge patch of one object."""

    kind: str
    name: str
    body: Object


@dataclass(frozen=True)
class Delete:
    """Delete one object; ``force`` skips the grace period (for a pod whose node is lost)."""

    kind: str
    name: str
    force: bool = False
    grace_seconds: int | None = None
    """None: the grace period of the object itself."""


@dataclass(frozen=True)
class RunEvent:
    """A Kubernetes Event to write about the run, once."""

    reason: AnyReason
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Decision:
    """What one pass does, in this order: secrets, access, apply, patch, supersede, delete,
    control, delete_keys, status, events."""

    status: FlashRunStatus
    secrets: SecretCopy | None = None
    access: AccessGrant | None = None
    apply: tuple[Object, ...] = ()
    patch: tuple[Patch, ...] = ()
    supersede: int | None = None
    """Number of the attempt whose claim is to be marked as superseded."""
    delete: tuple[Delete, ...] = ()
    control: TrainerControl | None = None
    """Record to write to storage, which the trainer reads."""
    delete_keys: tuple[str, ...] = ()
    """Keys in storage to delete."""
    events: tuple[RunEvent, ...] = ()
    requeue_seconds: float | None = None
