"""The records that trainer, operator and command line exchange through S3, with one model per file.

Keys are in ``flashrun.api.names``. Everything is JSON; times are RFC 3339 in UTC; sizes are bytes.
The commit protocol: files first, manifest last, created and never overwritten. A checkpoint without
a valid manifest does not exist, and the operator relies on manifests, never on a pod's report.
"""

from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from flashrun.api.base import Record
from flashrun.api.bounds import (
    AttemptNumber,
    Count,
    ExitCode,
    Identifier,
    LayerNames,
    MetricName,
    Metrics,
    Percent,
    Positive,
    Sentence,
    StatusText,
    ZonedTime,
)
from flashrun.api.catalog import Source, Thinking
from flashrun.api.config import LONGEST_SEQUENCE, Algorithm, FiniteJson
from flashrun.api.exits import Message, Termination
from flashrun.api.reasons import AnyReason, Phase
from flashrun.api.storage_endpoint import bucket_arn
from flashrun.api.trainer_choices import Layout, RoutedExperts

FILES_LIMIT: Final = 1024
"""Most files that one manifest lists."""


class RunIdentity(Record):
    """Which run: the uid tells two runs of one name apart."""

    namespace: Identifier
    name: Identifier
    uid: Identifier


class ResolvedModel(Record):
    """A base model, pinned."""

    id: str
    source: Source
    revision: str


class ResolvedEnvironment(Record):
    """An environment, pinned by the digest of its package."""

    id: str
    digest: str
    """SHA-256 of the package, in hex."""
    params: dict[str, FiniteJson] = {}
    pip: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    """Names of the variables whose values the trainer keeps out of logs and messages."""
    split: str


class ResolvedAdapter(Record):
    """The adapter that a run starts from, pinned by its storage prefix."""

    ref: str
    uid: str
    prefix: str
    """Prefix with the manifest."""


class ResolvedTrain(Record):
    """Every key of ``train`` with its value; None for a key that the algorithm does not use."""

    lora_rank: int
    lora_alpha: int
    learning_rate: float
    batch_size: int
    max_length: int
    save_every: int
    epochs: int | None = None
    max_steps: int | None = None
    """0 means no limit."""
    max_examples: int = 0
    """0 means no limit."""
    steps: int | None = None
    group_size: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    kl_penalty_coef: float | None = None
    advantage_clip: float | None = None
    thinking_length_penalty_coef: float | None = None
    stop_sequences: tuple[str, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_older_records(cls, value: Any) -> Any:
        """Drop the 0 or the empty list that older releases wrote for the other algorithm's key."""
        if not isinstance(value, dict):
            return value
        other = "stop_sequences" if value.get("steps") is None else "max_steps"
        return {key: item for key, item in value.items() if key != other or item}

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is None: older trainers accept an absent key, but not a null."""
        return {key: item for key, item in handler(self).items() if item is not None}


class ResolvedEval(Record):
    """Evaluation on held-out examples, with every default filled in."""

    split: str
    required: bool
    """Whether the config names the split: a run without it fails. Else it is not evaluated."""
    every: int | None = None
    """Steps between evaluations; None evaluates at each save."""
    max_examples: int
    may_shrink: bool = True
    """Whether evaluations that take too much of the run's time answer fewer examples."""
    samples: int
    """1 is one greedy answer per example; more are sampled at ``temperature``."""
    temperature: float
    max_tokens: int
    """Longest answer."""
    metric: str
    """What the best checkpoint is judged by."""


class Scale(Record):
    """How many processes train, one per GPU, and whether the weights are sharded over them."""

    nodes: int = Field(default=1, ge=1)
    """Pods of one attempt, each on a node of its own."""
    gpus: int = Field(default=1, ge=1)
    """GPUs of one pod."""
    sharded: bool = False
    """Whether one GPU cannot hold the model, so that its weights are spread (FSDP)."""

    @property
    def world_size(self) -> int:
        """Processes of the whole run."""
        return self.nodes * self.gpus


class Batching(Record):
    """How the trainer divides one optimizer step among its processes."""

    world_size: Positive
    micro_batch_size: Positive
    """Sequences of one forward and backward pass on one device."""
    gradient_accumulation_steps: Positive
    """Micro-batches per optimizer step on one device."""
    generation_batch_size: Count | None = None
    """GRPO: completions that are sampled for one step, over all processes."""
    layout: Layout | None = None
    """SFT: how the examples of a micro-batch lie in its tensors."""
    layout_reason: Sentence = ""
    """Why each example has a row of its own; empty if examples share rows."""


class AdaptedLayers(Record):
    """Which layers of the language model the adapter changes."""

    layers: LayerNames
    percent: Percent
    """Share of the layers' weights, rounded down; routed experts are not counted."""
    routed_experts: RoutedExperts


class ResolvedWandb(Record):
    """Labels for Weights & Biases."""

    project: str
    run_name: str


class ResolvedRun(Record):
    """Everything that a trainer needs: mounted as JSON, and stored as ``spec.json``."""

    max_bytes = 1024 * 1024
    max_values = 8192

    run: RunIdentity
    model: ResolvedModel
    algorithm: Algorithm
    thinking: bool
    environment: ResolvedEnvironment
    train: ResolvedTrain
    eval: ResolvedEval | None = None
    """None: the run is not evaluated."""
    init_from_adapter: ResolvedAdapter | None = None
    worker_env: dict[str, str] = {}
    wandb: ResolvedWandb
    seed: int
    prompt_date: date | None = None
    """The day that chat templates write as today, in every attempt; None leaves it to the clock."""
    scale: Scale = Scale()
    image: str = ""
    hub_endpoint: str = ""
    """Address of the model hub; empty is the library's default."""
    pip_index_url: str = ""
    """Address of the package index; empty is pip's default."""
    upload_timeout_seconds: int = 300
    """How long the last upload may take before the attempt fails with ``UploadTimeout``."""

    @model_serializer(mode="wrap")
    def _leave_out_newer_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what a run of an earlier version has not: its trainer does not know the key."""
        written: dict[str, Any] = handler(self)
        newer = ("eval", "prompt_date")
        return {key: item for key, item in written.items() if key not in newer or item is not None}


class StorageAccess(Record):
    """How to reach the bucket: mounted as a file, so that it can be renewed under a running pod."""

    endpoint: str
    """``http://host:port`` or ``https://host``."""
    bucket: str
    region: str = "us-east-1"
    access_key: str
    secret_key: str = Field(repr=False)
    session_token: str = Field(default="", repr=False)
    expires: datetime | None = None
    """When the credentials end; None for ones that do not."""
    addressing: Literal["path", "virtual"] | None = None
    """Where the bucket is in addresses; None: in the host name on AWS, in the path elsewhere."""
    sse: Literal["s3", "kms"] | None = None
    """How the store encrypts what is written; None: as the bucket is set."""
    sse_kms_key: str | None = None
    """Key of ``kms``."""

    @property
    def bucket_arn(self) -> str:
        """How policies name the bucket."""
        return bucket_arn(self.endpoint, self.region, self.bucket)


class HubAccess(Record):
    """Credentials of the model hub: mounted as a file, for one address and no other."""

    endpoint: str
    """The platform's ``hubEndpoint``."""
    token: str = Field(default="", repr=False)
    username: str = ""
    password: str = Field(default="", repr=False)


class FileEntry(Record):
    """One file of a manifest; ``path`` is relative to the manifest."""

    path: Annotated[str, StringConstraints(max_length=1024)]
    size: Count
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class CheckpointEvaluation(Record):
    """What the evaluation of a checkpoint has measured."""

    metric: MetricName
    """What the best checkpoint is judged by."""
    score: float
    """Its value."""
    metrics: Metrics = {}


class ModelFacts(Record):
    """What was read from the files of a base model when it was pushed."""

    parameters: int = Field(ge=1, le=10**14)
    """Numbers in its weights."""
    context: int = Field(ge=1, le=LONGEST_SEQUENCE)
    """Longest sequence in tokens."""
    thinking: Thinking
    """Whether it can reason, by its chat template."""


class Manifest(Record):
    """The commit marker of a checkpoint, a final adapter or a mirrored model."""

    max_bytes = 256 * 1024
    max_values = 8192

    format: Literal[1] = 1
    kind: Literal["checkpoint", "state", "adapter", "model"]
    run: RunIdentity | None = None
    """None for a mirrored model."""
    attempt: AttemptNumber | None = None
    step: Count | None = None
    base_model: Annotated[str, StringConstraints(max_length=1024)] = ""
    lora_rank: Count | None = None
    lora_alpha: Count | None = None
    evaluation: CheckpointEvaluation | None = None
    """None for a checkpoint that was not evaluated before it was uploaded."""
    evaluation_stopped: bool = False
    """Whether its evaluation had begun, and was stopped; the next attempt evaluates it."""
    model: ModelFacts | None = None
    """Of a mirrored model; None for all others, and for what other programs mirrored."""
    created: ZonedTime
    files: Annotated[tuple[FileEntry, ...], Field(max_length=FILES_LIMIT, fail_fast=True)]

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out keys without a value that older releases do not know."""
        written: dict[str, Any] = handler(self)
        newer = ("evaluation", "evaluation_stopped", "model")
        return {key: value for key, value in written.items() if key not in newer or value}

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def commits(self, kind: str, uid: str, size_of: Callable[[str], int | None]) -> bool:
        """Say whether it has this kind and run, and every file that it lists has its size."""
        own = self.kind == kind and self.run is not None and self.run.uid == uid
        return own and all(size_of(file.path) == file.size for file in self.files)


class Claim(Record):
    """Which pod owns an attempt: the first that creates this file."""

    attempt: AttemptNumber = Field(ge=1)
    pod: Identifier
    pod_uid: Identifier
    node: Identifier = ""
    started: ZonedTime
    superseded: bool = False


STEP_SECONDS: Final = "seconds/step"
"""Metric with the time of a step, evaluations left out."""
STARTUP: Final = "startup/"
"""Prefix of the metrics with the seconds of what came before the first step of an attempt."""


class Progress(Record):
    """How far training is; ``status.progress`` shows it."""

    step: Count
    total_steps: Count
    eta_seconds: Count | None = None
    metrics: Metrics = {}


class EvaluationPoint(Record):
    """The value of an evaluation's metric after one step; step 0 is before training."""

    step: Count
    score: float


class Evaluation(Record):
    """How good the model is on held-out examples; ``status.evaluation`` shows it."""

    metric: MetricName
    """Which metric the scores are values of."""
    baseline: EvaluationPoint | None = None
    """Before the first step."""
    last: EvaluationPoint | None = None
    best: EvaluationPoint | None = None
    """The best one that has a checkpoint; of equal ones, the earliest."""
    examples: Count = 0
    """Examples of the last evaluation."""
    unscored: Count = 0
    """Answers of the last evaluation that have no score."""


class Heartbeat(Record):
    """A running run's heartbeat: small, overwritten, removed at the end."""

    run: RunIdentity
    attempt: AttemptNumber
    """0 while the init containers are at work, before there is one."""
    pod: Identifier
    activity: Message
    """An ``Activity``; a detail may follow in parentheses."""
    progress: Progress | None = None
    batching: Batching | None = None
    """Known once the trainer has seen its devices and its data."""
    adapted: AdaptedLayers | None = None
    """Known once the model has its adapter."""
    evaluation: Evaluation | None = None
    """Known once the run has been evaluated."""
    commits: Count = 0
    """How many checkpoints are committed; when it changes, the operator lists them again."""
    warning: Message = ""
    """One sentence about something that wastes GPU time, such as a constant reward."""
    wandb: Message = ""
    """Why Weights & Biases does not get the metrics; empty while it does or has no key."""
    main_memory: Count | None = None
    """Bytes of main memory that the pod's processes use, without caches that the kernel frees."""
    updated: ZonedTime


class Result(Record):
    """The terminal record of a run; a pod that finds one ends at once with the same outcome."""

    run: RunIdentity
    attempt: AttemptNumber
    exit_code: ExitCode
    termination: Termination | None = None
    """Why it failed; None when it succeeded."""
    progress: Progress | None = None
    batching: Batching | None = None
    wandb: Message = ""
    """Why Weights & Biases did not get the metrics; empty if it did or had no key."""
    adapted: AdaptedLayers | None = None
    evaluation: Evaluation | None = None
    finished: ZonedTime


class Ending(Record):
    """How a run ended, written once by the operator where no tenant can write.

    A cluster that was restored from a backup knows less than storage: it reads this.
    """

    run: RunIdentity
    phase: Phase
    reason: AnyReason
    message: StatusText = ""
    hint: StatusText = ""
    """Of a failed run, like the next two."""
    exit_code: int | None = None
    peak_memory_bytes: int | None = None
    gpu_seconds: int = Field(default=0, ge=0)
    month_gpu_seconds: int | None = Field(default=None, ge=0)
    """The part of it in the calendar month (UTC) of the end; earlier versions did not record it."""
    ended: ZonedTime


class TrainerControl(Record):
    """The operator's requests to a live trainer."""

    save_request: Annotated[str, StringConstraints(max_length=256)] = ""
    """A value not seen before asks for a checkpoint at the next step."""


class EnvironmentPointer(Record):
    """The newest package of an environment."""

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: Count
    pushed: ZonedTime


class MetricsRow(Record):
    """One line of a run's metrics."""

    step: Count
    attempt: AttemptNumber
    time: ZonedTime
    values: Metrics

    @property
    def is_first(self) -> bool:
        """Whether the row is the first one of its attempt: it has the seconds of the start."""
        return any(key.startswith(STARTUP) for key in self.values)
