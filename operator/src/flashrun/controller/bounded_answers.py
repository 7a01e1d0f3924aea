"""What the operator reads of objects that tenants can write, and how much of each.

An object has up to 1.5 MB in the API server, most of which its writer chooses, and its values take
twenty times as much memory. The shapes below name what is read; everything else is skipped where it
lies. What is read has bounds of its own.
"""

from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct, field
from typing_extensions import override

from flashrun.api import names
from flashrun.api.record_reader import has_more_values
from flashrun.cluster_errors import TooLarge, Unreachable
from flashrun.cluster_requests import (
    HEAD_BYTES,
    RESOURCES,
    Object,
    Request,
    WholeAnswers,
)

OBJECT_BYTES: Final = 2 * 1024 * 1024
"""Longest answer: one object of the largest size that the API server takes."""
PAGE: Final = 25
"""Objects in one answer to a list."""
SPEC_BYTES: Final = 512 * 1024
"""Longest spec of a run that has not begun."""
SPEC_VALUES: Final = 16_384
"""Most values in it, as they are counted: a table or list in a list counts twice."""
METADATA_VALUES: Final = 16_384
"""Most values in the metadata of one object, of which most are managed fields."""
DATA_VALUES: Final = 1_024
"""Most keys of a Secret or a ConfigMap."""
_TEXT: Final = 4_096
"""Most characters of one text: as long as a termination message."""
_ENTRIES: Final = 64
"""Most entries of one list."""
_OWNERS: Final = 8
"""Most owner references of one object."""
_UID: Final = 64
"""Most characters of a kind or a uid in one."""
_NOTHING: Final = Raw(b"null")
_NONE: Final = Raw(b"[]")


class OwnerReference(Struct, omit_defaults=True):
    """An owner reference."""

    kind: str = ""
    uid: str = ""
    controller: bool = False


class OurLabels(Struct, omit_defaults=True):
    """The labels that the operator reads."""

    run: str | None = field(default=None, name=names.RUN_LABEL)
    run_uid: str | None = field(default=None, name=names.RUN_UID_LABEL)
    job_number: str | None = field(default=None, name=names.JOB_NUMBER_LABEL)
    pod_index: str | None = field(default=None, name=names.POD_INDEX_LABEL)
    secrets: str | None = field(default=None, name=names.SECRETS_LABEL)
    queue: str | None = field(default=None, name=names.QUEUE_LABEL)


class OurAnnotations(Struct, omit_defaults=True):
    """The annotations that the operator reads."""

    expires: str | None = field(default=None, name=names.EXPIRES_ANNOTATION)
    policy: str | None = field(default=None, name=names.POLICY_ANNOTATION)
    suspended: str | None = field(default=None, name=names.SUSPENDED_ANNOTATION)
    user: str | None = field(default=None, name=names.USER_ANNOTATION)


class Identity(Struct, omit_defaults=True, rename="camel"):
    """Which object it is: all that is read of one that is listed or watched by its metadata."""

    name: str = ""
    namespace: str | None = None
    uid: str = ""
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: OurLabels | None = None


class FullMetadata(Identity, omit_defaults=True, rename="camel"):
    """Metadata of an object that is read alone, or that belongs to a run."""

    annotations: OurAnnotations | None = None
    owner_references: list[OwnerReference] | None = None
    finalizers: list[str] | None = None


class Conditions(Struct, omit_defaults=True, rename="camel"):
    """One condition in a status."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None
    last_probe_time: str | None = None
    observed_generation: int | None = None


class JobSpec(Struct, omit_defaults=True, rename="camel"):
    """What the operator compares of a Job's spec."""

    suspend: bool | None = None
    managed_by: str | None = None
    parallelism: int | None = None
    backoff_limit: int | None = None
    backoff_limit_per_index: int | None = None
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None


class JobStatus(Struct, omit_defaults=True, rename="camel"):
    """Since when a Job runs, and how it ended."""

    start_time: str | None = None
    conditions: list[Conditions] | None = None


class JobObject(Struct, rename="camel"):
    """A Job."""

    metadata: Raw
    spec: JobSpec = field(default_factory=JobSpec)
    status: JobStatus = field(default_factory=JobStatus)


class WorkloadSpec(Struct, omit_defaults=True, rename="camel"):
    """Whether Kueue may admit a Workload, and where it waits."""

    active: bool | None = None
    queue_name: str | None = None


class AdmissionCheck(Struct, omit_defaults=True):
    """What Kueue waits for after it has reserved quota."""

    name: str = ""
    state: str | None = None
    message: str | None = None


class WorkloadStatus(Struct, omit_defaults=True, rename="camel"):
    """How far Kueue is with a Workload."""

    conditions: list[Conditions] | None = None
    admission_checks: list[AdmissionCheck] | None = None


class WorkloadObject(Struct):
    """A Workload of Kueue."""

    metadata: Raw
    spec: WorkloadSpec = field(default_factory=WorkloadSpec)
    status: WorkloadStatus = field(default_factory=WorkloadStatus)


class Terminated(Struct, omit_defaults=True, rename="camel"):
    """How a container ended."""

    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    started_at: str | None = None
    finished_at: str | None = None


class Running(Struct, omit_defaults=True, rename="camel"):
    """Since when a container runs."""

    started_at: str | None = None


class Waiting(Struct, omit_defaults=True):
    """What a container waits for."""

    reason: str | None = None
    message: str | None = None


class ContainerState(Struct, omit_defaults=True):
    """What a container does."""

    running: Running | None = None
    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(Struct, omit_defaults=True):
    """The state of one container."""

    name: str = ""
    started: bool | None = None
    state: ContainerState | None = None


class PodStatus(Struct, omit_defaults=True, rename="camel"):
    """What the kubelet says of a pod."""

    phase: str | None = None
    reason: str | None = None
    message: str | None = None
    start_time: str | None = None
    conditions: list[Conditions] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    container_statuses: list[ContainerStatus] | None = None


class Resources(Struct, omit_defaults=True):
    """What a container asks for."""

    limits: dict[str, Any] = {}


class ContainerSpec(Struct, omit_defaults=True):
    """A container of a pod."""

    resources: Resources = field(default_factory=Resources)


class InitContainerSpec(Struct, omit_defaults=True, rename="camel"):
    """An init container of a pod, which is a sidecar when it is always restarted."""

    name: str = ""
    restart_policy: str | None = None


class PodSpec(Struct, rename="camel"):
    """Where a pod runs, and what in it."""

    node_name: str = ""
    init_containers: Raw = _NONE
    containers: Raw = _NONE


class PodObject(Struct):
    """A pod."""

    metadata: Raw
    spec: PodSpec = field(default_factory=PodSpec)
    status: PodStatus = field(default_factory=PodStatus)


class EventSource(Struct, omit_defaults=True):
    """Which program reported an Event."""

    component: str | None = None


class EventSeries(Struct, omit_defaults=True, rename="camel"):
    """When an Event was last repeated."""

    last_observed_time: str | None = None


class EventSubject(Struct, omit_defaults=True):
    """Which object an Event is about."""

    kind: str | None = None
    uid: str | None = None


class EventObject(Struct, omit_defaults=True, rename="camel"):
    """An Event."""

    metadata: Identity = field(default_factory=Identity)
    involved_object: EventSubject | None = None
    type: str | None = None
    reason: str | None = None
    message: str | None = None
    source: EventSource | None = None
    reporting_component: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    series: EventSeries | None = None


class PartialObject(Struct):
    """An object of which only the metadata were asked for."""

    metadata: Raw


class ObjectWithData(Struct):
    """A ConfigMap or a Secret."""

    metadata: Raw
    immutable: bool = False
    data: Raw = _NOTHING


class RunObject(Struct):
    """A FlashRun."""

    metadata: Raw
    spec: Raw = _NOTHING
    status: Raw = _NOTHING


class SweepName(Struct, omit_defaults=True):
    """The sweep of a run, as other runs of it look it up."""

    name: str = ""


class MemberSpec(Struct, omit_defaults=True):
    """What the other runs of a sweep need of a run's spec."""

    sweep: SweepName | None = None


class MemberPending(Struct, omit_defaults=True):
    """Why a run of a sweep waits."""

    reason: str = ""


class MemberEvaluation(Struct, omit_defaults=True):
    """By what a run of a sweep is judged."""

    metric: str = ""


class MemberRung(Struct, omit_defaults=True):
    """How good a run was at one rung of its sweep."""

    rung: int = 0
    score: str = ""


class MemberRungs(Struct, omit_defaults=True):
    """How a run stands in its sweep."""

    rungs: list[MemberRung] | None = None


class MemberPins(Struct, omit_defaults=True, rename="camel"):
    """What shows that a run has begun."""

    environment_digest: str = ""


class MemberAttempt(Struct, omit_defaults=True, rename="camel"):
    """For how long an attempt held GPUs."""

    gpus: int = 1
    held_from: str | None = None
    start: str | None = None
    end: str | None = None


class MemberStatus(Struct, omit_defaults=True, rename="camel"):
    """What the other runs of a sweep, or of a namespace with a budget, need of a run's status."""

    phase: str = ""
    start_time: str | None = None
    completion_time: str | None = None
    gpu_seconds: int = 0
    attempts: list[MemberAttempt] | None = None
    resolved: MemberPins | None = None
    pending: MemberPending | None = None
    evaluation: MemberEvaluation | None = None
    sweep: MemberRungs | None = None


class MemberObject(Struct, omit_defaults=True):
    """A FlashRun, as the other runs of its sweep see it."""

    metadata: Identity
    spec: MemberSpec | None = None
    status: MemberStatus | None = None


class ListPosition(Struct, rename="camel"):
    """Which page of a list it is."""

    continue_: str = field(default="", name="continue")
    resource_version: str = ""


class ListedJobs(Struct):
    """A page of Jobs."""

    metadata: ListPosition
    items: list[JobObject] | None = None


class ListedPods(Struct):
    """A page of pods."""

    metadata: ListPosition
    items: list[PodObject] | None = None


class ListedWorkloads(Struct):
    """A page of Workloads."""

    metadata: ListPosition
    items: list[WorkloadObject] | None = None


class ListedMembers(Struct):
    """A page of runs of a sweep."""

    metadata: ListPosition
    items: list[MemberObject] | None = None


class ListedEvents(Struct):
    """A page of Events."""

    metadata: ListPosition
    items: list[EventObject] | None = None


class ListedIdentity(Struct):
    """An object in a page of metadata."""

    metadata: Identity


class ListedIdentities(Struct):
    """A page of metadata."""

    metadata: ListPosition
    items: list[ListedIdentity] | None = None


_Shape = TypeVar("_Shape", bound=Struct)
_KINDS: Final = {resource.plural: kind for kind, resource in RESOURCES.items()}


class BoundedAnswers(WholeAnswers):
    """Reads no more of an answer than the operator needs, and refuses what is too large."""

    max_bytes = OBJECT_BYTES
    page = PAGE

    @override
    def read(self, request: Request, text: bytes | bytearray | memoryview) -> Object:
        if request.verb == "delete":
            return {}  # nobody looks at what was there
        try:
            return _read(request, text)
        except TooLarge as error:
            error.head = bytes(text[:HEAD_BYTES])
            raise
        except RecursionError:
            raise TooLarge("it is nested too deeply", bytes(text[:HEAD_BYTES])) from None
        except msgspec.DecodeError as error:
            raise Unreachable(f"the API server's answer cannot be read: {error}") from None


def _read(request: Request, text: bytes | bytearray | memoryview) -> Object:
    kind = _KINDS.get(request.resource.plural, "")
    is_list = request.verb == "list"
    match kind:
        case _ if request.metadata_only and is_list:
            listed = _shaped(text, ListedIdentities)
            return _page(listed, [_plain(item) for item in listed.items or ()])
        case _ if request.metadata_only:
            return {"metadata": _metadata(request, _shaped(text, PartialObject).metadata)}
        case "Job" if is_list:
            jobs = _shaped(text, ListedJobs)
            return _page(jobs, [_job(request, item) for item in jobs.items or ()])
        case "Pod" if is_list:
            pods = _shaped(text, ListedPods)
            return _page(pods, [_pod(request, item) for item in pods.items or ()])
        case "Workload" if is_list:
            workloads = _shaped(text, ListedWorkloads)
            return _page(workloads, [_workload(request, item) for item in workloads.items or ()])
        case "Event" if is_list:
            events = _shaped(text, ListedEvents)
            return _page(events, [_plain(item) for item in events.items or ()])
        case names.KIND if is_list:
            members = _shaped(text, ListedMembers)
            return _page(members, [_plain(item) for item in members.items or ()])
        case "ConfigMap" | "Secret" if is_list:
            raise AssertionError(f"{request.target} are listed by their metadata")
        case "Job":
            return _job(request, _shaped(text, JobObject))
        case "Pod":
            return _pod(request, _shaped(text, PodObject))
        case names.KIND:
            return _run(request, _shaped(text, RunObject))
        case "ConfigMap" | "Secret":
            return _with_data(request, _shaped(text, ObjectWithData))
        case _:  # what no tenant writes
            whole: Object = msgspec.json.decode(text)
            return whole


def _page(listed: Any, items: list[Object]) -> Object:
    return {"metadata": {"continue": listed.metadata.continue_}, "items": items}


def _shaped(text: bytes | bytearray | memoryview | Raw, shape: type[_Shape]) -> _Shape:
    return msgspec.json.decode(text, type=shape)


def _plain(value: Struct) -> Object:
    """Return a value of a shape as the API server writes it, without what is too long in it."""
    plain: Object = _cut(msgspec.to_builtins(value))
    return plain


def _cut(value: Any) -> Any:
    """Cut what is too long in a plain value; lists of many objects pass here string by string."""
    shape = type(value)
    if shape is str:
        return value[:_TEXT]
    if shape is dict:
        return {key: _cut(item) for key, item in value.items()}
    return [_cut(item) for item in value[:_ENTRIES]] if shape is list else value


def _metadata(request: Request, raw: Raw) -> Object:
    if has_more_values(raw, METADATA_VALUES):
        raise TooLarge(
            f"the metadata of {request.target} have more than {METADATA_VALUES:,} values"
        )
    metadata = _shaped(raw, FullMetadata)
    if metadata.owner_references is not None:
        metadata.owner_references = [
            OwnerReference(owner.kind[:_UID], owner.uid[:_UID], owner.controller)
            for owner in metadata.owner_references[:_OWNERS]
        ]
    return _plain(metadata)


def _job(request: Request, job: JobObject) -> Object:
    metadata = _metadata(request, job.metadata)
    return {"metadata": metadata, "spec": _plain(job.spec), "status": _plain(job.status)}


def _workload(request: Request, workload: WorkloadObject) -> Object:
    metadata = _metadata(request, workload.metadata)
    spec, status = _plain(workload.spec), _plain(workload.status)
    return {"metadata": metadata, "spec": spec, "status": status}


def _pod(request: Request, pod: PodObject) -> Object:
    spec = {
        "nodeName": pod.spec.node_name,
        "initContainers": _containers(pod.spec.init_containers, list[InitContainerSpec])[:_ENTRIES],
        "containers": _containers(pod.spec.containers, list[ContainerSpec]),
    }
    return {
        "metadata": _metadata(request, pod.metadata),
        "spec": spec,
        "status": _plain(pod.status),
    }


def _containers(raw: Raw, shape: type[list[_Shape]]) -> list[Object]:
    """Return what is read of a pod's containers; nothing of more than a pod of ours can have."""
    if has_more_values(raw, SPEC_VALUES):
        return []
    return [_plain(item) for item in msgspec.json.decode(raw, type=shape)]


def _with_data(request: Request, item: ObjectWithData) -> Object:
    if has_more_values(item.data, DATA_VALUES):
        raise TooLarge(f"{request.target} has more than {DATA_VALUES:,} keys")
    return {
        "metadata": _metadata(request, item.metadata),
        "immutable": item.immutable,
        "data": msgspec.json.decode(item.data),
    }


def _run(request: Request, run: RunObject) -> Object:
    """Return a FlashRun; the spec of one that has begun is read whatever its size.

    It began under a version with other bounds, and has to end under this one.

    Raises:
        TooLarge: the run has not begun, and its spec is larger than that of any run.
    """
    status = msgspec.json.decode(run.status) or {}
    known = {"metadata": _metadata(request, run.metadata), "status": status}
    if not (status.get("resolved") or {}).get("environmentDigest"):
        size = len(memoryview(run.spec))
        if size > SPEC_BYTES:
            raise TooLarge(f"it has {size:,} bytes; at most {SPEC_BYTES:,} are read", known=known)
        if has_more_values(run.spec, SPEC_VALUES):
            raise TooLarge(f"it has more than {SPEC_VALUES:,} values", known=known)
    return {**known, "spec": msgspec.json.decode(run.spec)}
