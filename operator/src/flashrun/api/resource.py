"""The custom resource: ``FlashRun`` as the API server stores it.

The spec is the config in camelCase plus two things only a cluster has: where secrets are looked up
and the few switches that may change later. Status is a value, rebuilt in every pass; floats are
strings there, as the Kubernetes API conventions ask.
"""

import copy
from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import Field, ValidationError, model_validator

from flashrun.api import names
from flashrun.api.base import Section, error_sentences
from flashrun.api.bounds import LayerNames, Percent, Sentence, StatusText
from flashrun.api.config import Flag, RunConfig
from flashrun.api.float_params import whole_floats, with_floats
from flashrun.api.reasons import (
    NO_REASON,
    AnyReason,
    ConditionType,
    ForeignReason,
    Phase,
    Reason,
    ReasonText,
)
from flashrun.api.stored_bounds import bounded_fields
from flashrun.api.sweep import SweepMembership, SweepStatus
from flashrun.api.trainer_choices import Layout, RoutedExperts

CHECKPOINTS_SHOWN = 20
"""How many of the newest checkpoints the status lists; storage has all of them."""
ATTEMPTS_SHOWN = 20

_OBJECT_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"


class SecretRef(Section):
    """A Secret of the run's namespace, labelled ``flashrun.dev/secrets: "true"``."""

    name: Annotated[str, Field(max_length=253, pattern=_OBJECT_NAME)]
    """Name of the Secret."""


class Control(Section):
    """The part of a spec that may change after the run was created."""

    suspend: Flag = False
    """Pause the run: it saves and stops, and resumes when this is false again."""
    cancel: Flag = False
    """Cancel the run and keep its checkpoints; this cannot be undone."""
    save_request: Annotated[str, Field(max_length=64)] = ""
    """A new value asks a running run for a checkpoint now."""


class FlashRunSpec(RunConfig):
    """What to train; immutable except ``control`` and ``budget``."""

    secret_refs: tuple[SecretRef, ...] = Field(default=(), max_length=16)
    """Secrets with the values of ``environment.secrets``; the first one that has a name wins."""
    sweep: SweepMembership | None = None
    """The sweep that the run belongs to, if it does."""
    float_params: tuple[Annotated[str, Field(max_length=1024)], ...] = Field(
        default=(), max_length=4096
    )
    """JSON pointers into ``environment.params``, to numbers that are floats: the API server keeps
    2.0 as 2."""
    control: Control = Control()
    """Switches that may change after the run was created."""

    @model_validator(mode="before")
    @classmethod
    def _restore_floats(cls, given: Any) -> Any:
        places = given.get("floatParams") if isinstance(given, dict) else None
        environment = given.get("environment") if places else None
        if not isinstance(environment, dict) or not isinstance(environment.get("params"), dict):
            return given
        if not isinstance(places, list | tuple) or not all(isinstance(p, str) for p in places):
            return given  # which is refused
        params = with_floats(environment["params"], places[:4096])
        return {**given, "environment": {**environment, "params": params}}

    @property
    def names_secrets(self) -> bool:
        """Whether values of Secrets reach the run's pods."""
        return bool(self.environment.secrets or self.secret_refs)

    @classmethod
    def from_config(
        cls,
        config: RunConfig,
        secret_refs: tuple[SecretRef, ...] = (),
        sweep: SweepMembership | None = None,
    ) -> Self:
        """Return the spec of a composed config, with where its secrets are looked up."""
        given = {name: getattr(config, name) for name in config.model_fields_set}
        floats = whole_floats(config.environment.params)
        return cls(**given, secret_refs=secret_refs, sweep=sweep, float_params=floats)


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Section):
    """One observation about the run, after the Kubernetes API conventions."""

    type: Annotated[str, Field(max_length=64)]
    status: ConditionStatus
    reason: Annotated[Reason | ForeignReason, ReasonText(max_length=64)]
    message: StatusText = ""
    last_transition_time: datetime
    observed_generation: int | None = None


class ProgressStatus(Section):
    """How far training is."""

    step: int
    total_steps: int
    percent: int
    eta_seconds: int | None = None
    metrics: dict[str, str] = Field(default={}, max_length=16)
    activity: Annotated[str, Field(max_length=64)] = ""
    """What the run does now, such as Downloading, Training or Uploading."""
    updated_time: datetime | None = None


ATTEMPT_TEXT_LIMIT: Final = 256
"""Longest message of an attempt, in characters."""


class AttemptStatus(Section):
    """One attempt: its pod, or the leading pod of several."""

    number: int
    pod: str
    node: str = ""
    gpus: int = 1
    """GPUs of all its pods together."""
    pool: Annotated[str, Field(max_length=63)] = ""
    held_from: datetime | None = None
    """When a kubelet took the pod on: from then on it holds its GPUs."""
    start: datetime | None = None
    end: datetime | None = None
    reason: AnyReason = NO_REASON
    exit_code: int | None = None
    message: Annotated[str, Field(max_length=ATTEMPT_TEXT_LIMIT)] = ""
    """Which pod ended the attempt, if it was not the leading pod, and the kubelet's words."""
    from_step: int | None = None
    to_step: int | None = None


class CheckpointStatus(Section):
    """A committed checkpoint."""

    ref: str
    step: int
    bytes: int
    score: Annotated[str, Field(max_length=32)] | None = None
    """Value of the metric by which the best checkpoint is judged, if it was evaluated."""
    created_time: datetime


class AdapterStatus(Section):
    """The final adapter."""

    ref: str
    bytes: int


class FailureStatus(Section):
    """Why the run failed, in one sentence and a hint."""

    reason: AnyReason
    message: StatusText
    hint: StatusText = ""
    exit_code: int | None = None
    peak_memory_bytes: int | None = None
    """Most memory in use: of a GPU where there is one, else of the trainer."""


class PendingStatus(Section):
    """Why the run waits, in one sentence."""

    reason: AnyReason
    message: StatusText


class BatchingStatus(Section):
    """How the trainer divides one optimizer step among its processes."""

    world_size: int
    """Processes; one per GPU."""
    micro_batch_size: int
    """Sequences of one forward and backward pass on one device."""
    gradient_accumulation_steps: int
    """Micro-batches per optimizer step on one device."""
    generation_batch_size: int | None = None
    """GRPO: completions that are sampled at a time, over all processes."""
    layout: Layout | None = None
    """SFT: how the examples of a micro-batch lie in its tensors."""
    layout_reason: Sentence = ""
    """Why each example has a row of its own; empty if examples share rows."""


class AdaptedLayersStatus(Section):
    """Which layers of the language model the adapter changes."""

    layers: LayerNames
    """Last parts of their names."""
    percent: Percent
    """Share of the layers' weights, rounded down; routed experts are not counted."""
    routed_experts: RoutedExperts
    """Whether the model's routed experts are trained."""


class EvaluationPointStatus(Section):
    """What the evaluation after one step has measured."""

    step: int
    """0 is before training."""
    score: Annotated[str, Field(max_length=32)]


class EvaluationStatus(Section):
    """How good the model is on held-out examples; an extension of the reference."""

    metric: Annotated[str, Field(max_length=64)]
    """Which metric the scores are values of."""
    baseline: EvaluationPointStatus | None = None
    """Before the first step."""
    last: EvaluationPointStatus | None = None
    best: EvaluationPointStatus | None = None
    """The best one that has a checkpoint; of equal ones, the earliest."""
    examples: int = 0
    """Examples of the last evaluation."""
    unscored: int = 0
    """Answers of the last evaluation that have no score."""


class ResolvedStatus(Section):
    """What the platform chose and which defaults were filled in; fixed once chosen."""

    image: str = ""
    pool: str = ""
    gpus: int = 0
    """GPUs of all nodes together."""
    nodes: int = 1
    sharded: bool = False
    """Whether the model's weights are spread over the GPUs."""
    batching: BatchingStatus | None = None
    """Known once the trainer has begun."""
    adapted: AdaptedLayersStatus | None = None
    """Known once the model has its adapter."""
    environment_digest: str = ""
    model_source: str = ""
    model_revision: str = ""
    prompt_date: date | None = None
    """The day that chat templates write as today: the day on which the run was created, in UTC."""
    init_from_adapter_uid: str = ""
    init_from_adapter_prefix: str = ""
    wall_clock_seconds: int = 0
    retries: int = 0
    seconds_before: int = 0
    """Seconds of the wall-clock limit that earlier Jobs used, if the newest one continues them."""
    failures_before: int = 0
    """Counted failures of earlier Jobs, if the newest one continues them."""
    renewals: int = 0
    """Jobs that took the place of one that would have waited; they are not retries."""
    job: int = 0
    """Number of the newest Job, counted from 0."""
    job_uid: str = ""
    """Its uid; only this Job is the run's, whatever another one is called."""
    avoid_nodes: tuple[str, ...] = Field(default=(), max_length=64)
    """Nodes that it avoids, because a GPU of theirs is broken."""
    spec_digest: str = ""
    """SHA-256 of the resolved spec that its trainers read."""
    hub_endpoint: str = ""
    pip_index_url: str = ""
    upload_timeout_seconds: int = 0
    train: dict[str, str] = Field(default={}, max_length=64)
    """Every key of ``train`` with its value, as text."""
    eval: dict[str, str] = Field(default={}, max_length=16)
    """Every setting of the evaluation with its value, as JSON; empty when there is none."""
    ignored_keys: tuple[str, ...] = Field(default=(), max_length=64)
    """Given keys of ``train`` that the algorithm does not use."""


class FlashRunStatus(Section):
    """The state of the run as the operator last observed it; at most 10 kB."""

    observed_generation: int = 0
    phase: Phase = Phase.PENDING
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    )
    start_time: datetime | None = None
    completion_time: datetime | None = None
    storage: str = ""
    """Where the run's files are, ``s3://bucket/prefix``."""
    resolved: ResolvedStatus | None = None
    result_time: datetime | None = None
    """When the operator first saw the trainer's result while pods of the run were active."""
    storage_access_expires: datetime | None = None
    """When the storage credentials in the run's Secret end; unset for ones that do not."""
    progress: ProgressStatus | None = None
    evaluation: EvaluationStatus | None = None
    sweep: SweepStatus | None = None
    attempts: tuple[AttemptStatus, ...] = Field(default=(), max_length=ATTEMPTS_SHOWN)
    checkpoints: tuple[CheckpointStatus, ...] = Field(default=(), max_length=CHECKPOINTS_SHOWN)
    checkpoint_count: int = 0
    adapter: AdapterStatus | None = None
    failure: FailureStatus | None = None
    pending: PendingStatus | None = None
    gpu_seconds: int = 0
    """Time for which pods that have ended held GPUs, counted once per GPU."""

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return the condition of type ``kind``, or None."""
        return next((found for found in self.conditions if found.type == kind), None)

    def to_patch(self) -> dict[str, Any]:
        """Return the whole status for a merge patch: unset fields are null, which removes them.

        Times are written with whole seconds, as the API server keeps them.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_none=False)


class FlashRun(Section):
    """One run as the API server stores it, with the metadata that decisions need."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 1
    deleting: bool = False
    created: datetime | None = None
    annotations: dict[str, str] = {}
    spec: FlashRunSpec
    status: FlashRunStatus = FlashRunStatus()

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Self:
        """Parse an API object, which another version may have written.

        Raises:
            pydantic.ValidationError: its spec or the phase in its status cannot be read. Anything
                else in a status that cannot be read counts as absent.
        """
        metadata = manifest["metadata"]
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata.get("uid", ""),
            generation=metadata.get("generation", 1),
            deleting="deletionTimestamp" in metadata,
            created=metadata.get("creationTimestamp"),
            annotations=metadata.get("annotations") or {},
            spec=FlashRunSpec.validate_stored(manifest["spec"]),
            status=_read_status(manifest.get("status") or {}),
        )

    def refused_values(self) -> tuple[str, ...]:
        """Return what of the spec no new run may have, one sentence each."""
        try:
            FlashRunSpec.validate_manifest(self.spec.to_manifest())
        except ValidationError as error:
            return tuple(error_sentences(error))
        return ()

    @property
    def storage_prefix(self) -> str:
        """Prefix of everything this run keeps in storage."""
        return names.run_prefix(self.namespace, self.name, self.uid)


def _read_status(given: Any) -> FlashRunStatus:
    stored: Any = _bounded_status(given) if isinstance(given, dict) else given
    try:
        return FlashRunStatus.validate_stored(stored)
    except ValidationError as error:
        places = [problem["loc"] for problem in error.errors(include_input=False)]
        if not all(places) or any(place[0] == "phase" for place in places):
            raise  # no other phase may be assumed: a finished run would begin again
        readable = copy.deepcopy(stored)
        innermost = {_existing(readable, place) for place in places} - {()}
        # The last items of a list first, as the places of the others must stay.
        for *around, key in sorted(innermost, key=_in_order, reverse=True):
            holder = readable
            for step in around:
                holder = holder[step]
            del holder[key]
        return FlashRunStatus.validate_stored(readable)


def _bounded_status(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a status, without those that hold more than any version writes.

    Its phase is never left out: no other one may be assumed.
    """
    aliases = (str(field.alias) for field in FlashRunStatus.model_fields.values())
    phase = {"phase": stored["phase"]} if "phase" in stored else {}
    return bounded_fields(stored, aliases) | phase


def _existing(value: Any, place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return a place, or the innermost one around it at which there is something."""
    for depth, key in enumerate(place):
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return place[:depth]
    return place


def _in_order(place: tuple[int | str, ...]) -> tuple[str, ...]:
    return tuple(f"{step:09d}" if isinstance(step, int) else step for step in place)


def manifest(name: str, namespace: str | None, spec: FlashRunSpec) -> dict[str, Any]:
    """Return the object that ``kubectl apply`` and ``flash train`` submit."""
    metadata: dict[str, Any] = {"name": name}
    if namespace is not None:
        metadata["namespace"] = namespace
    if spec.sweep is not None:
        metadata["labels"] = {names.SWEEP_LABEL: spec.sweep.name}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": metadata,
        # The algorithm is written out even when it is the default: people look for it.
        "spec": {**spec.to_manifest(), "algorithm": spec.algorithm.value},
    }
