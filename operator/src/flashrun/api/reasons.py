"""The words of a run's status: reasons, condition types, phases and activities, with meanings.

A reason is one CamelCase word that appears in conditions, in ``status.pending`` and
``status.failure``, in attempts, in Events and in the termination messages of containers. Its text
never changes. Our own code produces only members of ``Reason``; a word of another program (a
kubelet, the Job controller, a newer FlashRun) enters through ``reason_from``.

``docs/reasons.md`` is printed from these tables.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, NewType, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema


class Word(StrEnum):
    """A word for programs, with a sentence for people."""

    sentence: str

    def __new__(cls, word: str, sentence: str = "") -> Self:
        """Return the member that is equal to ``word``."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.sentence = sentence
        return member


class Owner(Word):
    """Who can do something about a reason."""

    USER = "user", "The person who submitted the run: config, environment, dataset or Secrets."
    PLATFORM = (
        "platform",
        "The platform's administrator: cluster, nodes, images, model hub or package index.",
    )
    STORAGE = "storage", "The administrator of the S3 storage."
    INTERNAL = "internal", "FlashRun itself: a person has nothing to do, or reports an error."


class Retry(Word):
    """What follows an attempt that has ended."""

    NEVER = "never", "The run ends: another attempt would end in the same way."
    UNCOUNTED = "uncounted", "Retried; it does not count against the number of retries."
    COUNTED = "counted", "Retried, within the platform's number of retries."
    LARGER_POOL = (
        "larger-pool",
        "Retried in a new Job in a pool with more memory; the run ends when there is none.",
    )
    OTHER_NODE = "other-node", "Retried in a new Job that avoids the node that failed."


class Reason(Word):
    """Why something is as it is, in one word."""

    owner: Owner
    retry: Retry | None
    """What follows an attempt that ended with it; None for a reason that ends no attempt."""

    def __new__(
        cls,
        word: str,
        sentence: str = "",
        owner: Owner = Owner.INTERNAL,
        retry: Retry | None = None,
    ) -> Self:
        """Return the member that is equal to ``word``."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.sentence, member.owner, member.retry = sentence, owner, retry
        return member

    # --- what a run does --------------------------------------------------------------------------

    UNSEEN = (
        "Unseen",
        "No operator has seen the run yet: none serves its namespace, or none is running.",
        Owner.PLATFORM,
    )
    CHECKING = "Checking", "The operator has not checked this yet."
    ACCEPTED = "Accepted", "The spec is valid, and everything that it names exists."
    COPIED = "Copied", "The values of the run's secrets are in a Secret of its own."
    NAMESPACES_SERVED = "NamespacesServed", "All namespaces of the platform are served."
    STORAGE_UNSUITABLE = (
        "StorageUnsuitable",
        "S3 storage lacks something that every run needs: no run starts. Also an Event of the "
        "operator's pod.",
        Owner.STORAGE,
    )
    NAMESPACE_NOT_SERVED = (
        "NamespaceNotServed",
        "An Event of the operator's pod: it has no rights in a namespace, and serves the others. "
        "In a run: its namespace is not served any more.",
        Owner.PLATFORM,
    )
    ISSUED = "Issued", "The run has credentials for storage, and they are renewed in time."
    LAUNCHED = "Launched", "The Job was created."
    NO_POD = "NoPod", "The Job has no pod yet."
    POD_PENDING = "PodPending", "The Job controller has not created all pods of the attempt yet."
    SCHEDULING = "Scheduling", "The scheduler has not chosen nodes for all pods yet."
    SCHEDULED = "Scheduled", "All pods of the attempt are on nodes."
    STARTING = "Starting", "The pod starts."
    PULLING_IMAGE = "PullingImage", "The node pulls the trainer image."
    DOWNLOADING = "Downloading", "The base model is being downloaded."
    INSTALLING = "Installing", "The environment is being installed."
    TRAINING = "Training", "The trainer is at work."
    TRAINING_WARNING = (
        "TrainingWarning",
        "The trainer is at work, but something wastes GPU time, such as a constant reward.",
        Owner.USER,
    )
    FINISHING = (
        "Finishing",
        "The trainer is done; its pods are ending, or its result cannot be read from storage yet.",
    )
    TRAINED = "Trained", "The run has succeeded: result and adapter are in storage."
    SUSPENDING = "Suspending", "The run was suspended; the trainer saves and stops."
    SUSPENDED = "Suspended", "The run is paused by spec.control.suspend."
    BUDGET_USED_UP = (
        "BudgetUsedUp",
        "The run has used its GPU hours and is paused: raise spec.budget.gpuHours to go on.",
        Owner.USER,
    )
    NAMESPACE_BUDGET_USED_UP = (
        "NamespaceBudgetUsedUp",
        "The runs of the namespace have used its GPU hours of this month (budgets in the chart's "
        "values): running ones save and pause, and all go on next month, or when there are more.",
        Owner.PLATFORM,
    )
    CANCELLING = "Cancelling", "The run was cancelled; the trainer saves and stops."
    CANCELLED = "Cancelled", "The run was cancelled; its checkpoints are kept."
    STOPPED_BY_SWEEP = (
        "StoppedBySweep",
        "Other runs of the sweep were better at the same step; its checkpoints are kept.",
        Owner.USER,
    )
    DELETED = (
        "Deleted",
        "The run was deleted and trains no more; finalizers hold it, or a backup brought it back.",
    )
    RETRYING = "Retrying", "The next attempt starts in another Job."
    NO_CHECKPOINT = "NoCheckpoint", "No checkpoint is in storage yet."
    RECORD_REFUSED = (
        "RecordRefused",
        "A record that the run wrote to storage is outside its bounds and is ignored.",
        Owner.USER,
    )
    WANDB_KEY_MISSING = (
        "WandbKeyMissing",
        "The config names a project or a run of Weights & Biases, but WANDB_API_KEY has no value.",
        Owner.USER,
    )
    WANDB_OFF = (
        "WandbOff",
        "Weights & Biases does not get the run's metrics; they are in storage.",
        Owner.USER,
    )
    SCORE_FELL = (
        "ScoreFell",
        "The held-out score is worse than before training; an earlier checkpoint may be better.",
        Owner.USER,
    )
    SCORE_HELD = "ScoreHeld", "The held-out score is not worse than before training."
    WANDB_ON = "WandbOn", "Weights & Biases gets the run's metrics again."
    TOO_MANY_FILES = (
        "TooManyFiles",
        "The run has more files in storage than the operator reads; the rest is ignored.",
        Owner.USER,
    )
    SYNCED = "Synced", "The checkpoints in storage were listed."
    CHECKPOINT_UPLOADED = "CheckpointUploaded", "A checkpoint is in storage."
    ATTEMPT_ENDED = "AttemptEnded", "An attempt ended without success; the message has its reason."

    # --- what a run waits for ---------------------------------------------------------------------

    QUEUED = "Queued", "The run waits for quota in Kueue's queue.", Owner.PLATFORM
    MANAGED_ELSEWHERE = (
        "ManagedElsewhere",
        "The Job was handed to another cluster (spec.managedBy), such as by MultiKueue.",
        Owner.PLATFORM,
    )
    SWEEP_LIMIT = (
        "SweepLimit",
        "As many runs of the sweep as may run at once do; another one has to end first.",
        Owner.USER,
    )
    UNSCHEDULABLE = "Unschedulable", "No node has room for a pod of the run.", Owner.PLATFORM
    SECRET_MISSING = (
        "SecretMissing",
        "A name in environment.secrets has no value in the Secrets of spec.secretRefs.",
        Owner.USER,
    )
    ADAPTER_NOT_FOUND = (
        "AdapterNotFound",
        "The adapter in train.init_from_adapter is not in storage.",
        Owner.USER,
    )
    CLUSTER_REFUSES = (
        "ClusterRefuses",
        "The API server refuses an object of the run, because of quota, policy or rights.",
        Owner.PLATFORM,
    )
    CLUSTER_UNAVAILABLE = (
        "ClusterUnavailable",
        "The API server, or a webhook that it asks, fails or does not answer.",
        Owner.PLATFORM,
    )
    OPERATOR_FAILED = (
        "OperatorFailed",
        "The operator failed with an error that it does not know; its log has the details.",
    )
    SPEC_UNREADABLE = (
        "SpecUnreadable",
        "The operator cannot read the spec: it is too large, or written for another version.",
        Owner.PLATFORM,
    )

    # --- how an attempt or a run ends -------------------------------------------------------------

    SUCCEEDED = "Succeeded", "Training is complete.", Owner.INTERNAL, Retry.NEVER
    COMPLETED = "Completed", "The pod ended with exit code 0.", Owner.INTERNAL, Retry.NEVER
    INTERRUPTED = (
        "Interrupted",
        "The pod was asked to stop: preemption, eviction, a node shutdown or a suspended run.",
        Owner.PLATFORM,
        Retry.UNCOUNTED,
    )
    SUPERSEDED = (
        "Superseded",
        "Another pod owns the run now.",
        Owner.INTERNAL,
        Retry.UNCOUNTED,
    )
    EVICTED = (
        "Evicted",
        "The kubelet ended the pod, which used more local disk than its limits allow.",
        Owner.USER,
        Retry.COUNTED,
    )
    ADDED_CONTAINER_FAILED = (
        "AddedContainerFailed",
        "A container that another program added to the pod failed before the trainer started.",
        Owner.PLATFORM,
        Retry.COUNTED,
    )
    NODE_LOST = (
        "NodeLost",
        "The pod's node did not answer for 10 minutes.",
        Owner.PLATFORM,
        Retry.UNCOUNTED,
    )
    POD_LOST = (
        "PodLost",
        "The pod was deleted before the operator saw how it ended.",
        Owner.PLATFORM,
        Retry.COUNTED,
    )
    PEER_FAILED = (
        "PeerFailed",
        "Another pod of the attempt failed; that pod has the reason.",
        Owner.INTERNAL,
        Retry.UNCOUNTED,
    )
    PEER_LOST = (
        "PeerLost",
        "Another pod of the attempt went away. It counts when that pod's node does not answer.",
        Owner.PLATFORM,
        Retry.UNCOUNTED,
    )
    PEERS_MISSING = (
        "PeersMissing",
        "The pods of the attempt did not all start within 30 minutes.",
        Owner.PLATFORM,
        Retry.COUNTED,
    )
    SPEC_INVALID = (
        "SpecInvalid",
        "The spec cannot work on this platform, or the trainer cannot read it.",
        Owner.USER,
        Retry.NEVER,
    )
    CONFIG_INVALID = (
        "ConfigInvalid",
        "The trainer refused the resolved spec.",
        Owner.USER,
        Retry.NEVER,
    )
    BATCH_INDIVISIBLE = (
        "BatchIndivisible",
        "The completions of a step cannot be divided among the GPUs.",
        Owner.USER,
        Retry.NEVER,
    )
    TEMPERATURE_ZERO = (
        "TemperatureZero",
        "train.temperature is 0, so that all completions of a group would be equal.",
        Owner.USER,
        Retry.NEVER,
    )
    TEMPLATE_UNSUPPORTED = (
        "TemplateUnsupported",
        "The model's chat template leaves out the text of messages, does not end turns, or writes "
        "calls of tools in an unknown form and the environment offers tools.",
        Owner.USER,
        Retry.NEVER,
    )
    ADAPTER_MISMATCH = (
        "AdapterMismatch",
        "The adapter in train.init_from_adapter does not fit the base model.",
        Owner.USER,
        Retry.NEVER,
    )
    NO_POOL = "NoPool", "No pool of the cluster fits the model.", Owner.PLATFORM, Retry.NEVER
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        "The trainer image cannot be pulled.",
        Owner.PLATFORM,
        Retry.NEVER,
    )
    WALL_CLOCK_EXCEEDED = (
        "WallClockExceeded",
        "The run reached the platform's wall-clock limit.",
        Owner.USER,
        Retry.NEVER,
    )
    CUDA_OUT_OF_MEMORY = (
        "CudaOutOfMemory",
        "The GPU ran out of memory.",
        Owner.USER,
        Retry.LARGER_POOL,
    )
    HOST_OUT_OF_MEMORY = (
        "HostOutOfMemory",
        "The kernel ended the pod, which used more main memory than its pool allows.",
        Owner.USER,
        Retry.LARGER_POOL,
    )
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "The trainer could not allocate main memory.",
        Owner.USER,
        Retry.LARGER_POOL,
    )
    DISK_FULL = "DiskFull", "The pod's disk is full.", Owner.USER, Retry.COUNTED
    GPU_FAULT = (
        "GpuFault",
        "The GPU failed, or PyTorch cannot use it.",
        Owner.PLATFORM,
        Retry.OTHER_NODE,
    )
    NCCL_FAILED = (
        "NcclFailed",
        "The GPUs lost contact with each other.",
        Owner.PLATFORM,
        Retry.COUNTED,
    )
    NCCL_FAILURE = (
        "NcclFailure",
        "The GPUs lost contact with each other, and the trainer left no message.",
        Owner.PLATFORM,
        Retry.COUNTED,
    )
    MODEL_UNAVAILABLE = (
        "ModelUnavailable",
        "The base model or the adapter to start from cannot be downloaded.",
        Owner.PLATFORM,
        Retry.NEVER,
    )
    ADAPTER_UNAVAILABLE = (
        "AdapterUnavailable",
        "The adapter in train.init_from_adapter cannot be downloaded.",
        Owner.USER,
        Retry.NEVER,
    )
    CHAT_TEMPLATE_MISSING = (
        "ChatTemplateMissing",
        "The base model has no chat template.",
        Owner.USER,
        Retry.NEVER,
    )
    LAYERS_UNKNOWN = (
        "LayersUnknown",
        "No layer of the base model has a name that an adapter can be trained on.",
        Owner.USER,
        Retry.NEVER,
    )
    END_TOKEN_MISSING = (
        "EndTokenMissing",
        "The base model's tokenizer has no end-of-sequence token.",
        Owner.USER,
        Retry.NEVER,
    )
    HUB_UNAVAILABLE = (
        "HubUnavailable",
        "The model hub does not answer.",
        Owner.PLATFORM,
        Retry.COUNTED,
    )
    INDEX_UNAVAILABLE = (
        "IndexUnavailable",
        "The package index does not answer.",
        Owner.PLATFORM,
        Retry.COUNTED,
    )
    PACKAGE_CONFLICT = (
        "PackageConflict",
        "environment.pip conflicts with the trainer's own packages, or excludes the version of "
        "verifiers that runs use.",
        Owner.USER,
        Retry.NEVER,
    )
    PACKAGE_NOT_FOUND = (
        "PackageNotFound",
        "The package index does not have a package of environment.pip.",
        Owner.USER,
        Retry.NEVER,
    )
    PACKAGE_FAILED = (
        "PackageFailed",
        "A package of environment.pip cannot be installed.",
        Owner.USER,
        Retry.NEVER,
    )
    ENVIRONMENT_NOT_OWNED = (
        "EnvironmentNotOwned",
        "The environment's org is not bound to the run's namespace (environments.owners).",
        Owner.USER,
    )
    ENVIRONMENT_NOT_FOUND = (
        "EnvironmentNotFound",
        "The environment is not in storage. A run waits for it before its first attempt.",
        Owner.USER,
        Retry.NEVER,
    )
    ENVIRONMENT_CORRUPT = (
        "EnvironmentCorrupt",
        "The environment's package in storage has another SHA-256 than the run recorded.",
        Owner.STORAGE,
        Retry.COUNTED,
    )
    ENVIRONMENT_INVALID = (
        "EnvironmentInvalid",
        "The environment's package cannot be unpacked, has no environment.py, has a module with "
        "the name of one that the trainer imports, or needs what runs do not give to environments "
        "of verifiers.",
        Owner.USER,
        Retry.NEVER,
    )
    ENVIRONMENT_FAILED = (
        "EnvironmentFailed",
        "The environment's own code failed.",
        Owner.USER,
        Retry.NEVER,
    )
    REWARD_FAILED = (
        "RewardFailed",
        "The environment could not score a single response of the first step, in several tries.",
        Owner.USER,
        Retry.NEVER,
    )
    JUDGE_UNAVAILABLE = (
        "JudgeUnavailable",
        "The environment, which had scored before, could not score a single response of a step.",
        Owner.USER,
        Retry.COUNTED,
    )
    ENVIRONMENT_UNAVAILABLE = (
        "EnvironmentUnavailable",
        "The environment, with which an earlier attempt has trained, failed before training.",
        Owner.USER,
        Retry.COUNTED,
    )
    EXAMPLES_DIFFER = (
        "ExamplesDiffer",
        "The environment gives different examples to the processes of one run.",
        Owner.USER,
        Retry.NEVER,
    )
    DATA_INVALID = "DataInvalid", "The dataset cannot be used.", Owner.USER, Retry.NEVER
    DATASET_INVALID = (
        "DatasetInvalid",
        "A row of the dataset cannot be read.",
        Owner.USER,
        Retry.NEVER,
    )
    DATASET_MISSING = (
        "DatasetMissing",
        "The file in params.dataset_path is not in the environment's package.",
        Owner.USER,
        Retry.NEVER,
    )
    DATASET_EMPTY = (
        "DatasetEmpty",
        "The split has no examples.",
        Owner.USER,
        Retry.NEVER,
    )
    SPLIT_MISSING = (
        "SplitMissing",
        "The environment's package does not have the split.",
        Owner.USER,
        Retry.NEVER,
    )
    EVAL_SPLIT_MISSING = (
        "EvalSplitMissing",
        "The environment's package does not have the split in eval.split, or no usable examples.",
        Owner.USER,
        Retry.NEVER,
    )
    EVAL_METRIC_MISSING = (
        "EvalMetricMissing",
        "The metric in eval.metric is not one that an evaluation of this environment has.",
        Owner.USER,
        Retry.NEVER,
    )
    PROMPTS_TOO_LONG = (
        "PromptsTooLong",
        "All prompts are longer than max_length - max_tokens.",
        Owner.USER,
        Retry.NEVER,
    )
    NOTHING_TO_LEARN = (
        "NothingToLearn",
        "None of the examples has an output within max_length.",
        Owner.USER,
        Retry.NEVER,
    )
    TEMPLATE_REFUSED = (
        "TemplateRefused",
        "The model's chat template refuses messages of the environment.",
        Owner.USER,
        Retry.NEVER,
    )
    TEXT_INVALID = (
        "TextInvalid",
        "The dataset has text that is not valid Unicode.",
        Owner.USER,
        Retry.NEVER,
    )
    DIVERGED = (
        "Diverged",
        "The loss, a gradient or a weight is not finite.",
        Owner.USER,
        Retry.NEVER,
    )
    SAMPLER_STALE = (
        "SamplerStale",
        "The policy that is trained is not the one from which vLLM samples.",
        Owner.PLATFORM,
        Retry.NEVER,
    )
    STORAGE_UNAVAILABLE = (
        "StorageUnavailable",
        "S3 storage cannot be read or written. A run waits for it before its first attempt.",
        Owner.STORAGE,
        Retry.COUNTED,
    )
    UPLOAD_TIMEOUT = (
        "UploadTimeout",
        "The last checkpoints were not uploaded in time.",
        Owner.STORAGE,
        Retry.COUNTED,
    )
    PROCESS_KILLED = (
        "ProcessKilled",
        "A signal ended a process of the trainer, most often because main memory ran out.",
        Owner.USER,
        Retry.COUNTED,
    )
    PROCESS_FAILED = (
        "ProcessFailed",
        "A process of the trainer ended without a message.",
        Owner.INTERNAL,
        Retry.COUNTED,
    )
    UNEXPECTED = (
        "Unexpected",
        "The trainer failed with an error that it does not know.",
        Owner.INTERNAL,
        Retry.COUNTED,
    )
    TRAINER_FAILED = (
        "TrainerFailed",
        "The trainer ended without a message.",
        Owner.INTERNAL,
        Retry.COUNTED,
    )
    RESULT_MISSING = (
        "ResultMissing",
        "The trainer ended with exit code 0, but its result is not in storage.",
        Owner.USER,
        Retry.NEVER,
    )
    JOB_FAILED = (
        "JobFailed",
        "The Job failed, and no pod is left that says why.",
        Owner.INTERNAL,
        Retry.NEVER,
    )


ForeignReason = NewType("ForeignReason", str)
"""A reason of another program; only ``reason_from`` makes one."""

NO_REASON: Final = ForeignReason("")
"""What stands in the place of a reason while nothing has ended."""


def reason_from(text: str) -> Reason | ForeignReason:
    """Return a reason that another program gave: as a member where it is one of ours."""
    try:
        return Reason(text)
    except ValueError:
        return ForeignReason(text)


@dataclass(frozen=True)
class ReasonText:
    """Annotation of a field that is stored as text and read with ``reason_from``."""

    max_length: int | None = None
    pattern: str | None = None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Return the schema of a string that becomes a reason."""
        text = core_schema.str_schema(max_length=self.max_length, pattern=self.pattern)
        return core_schema.no_info_after_validator_function(reason_from, text)


AnyReason = Annotated[Reason | ForeignReason, ReasonText()]
"""The field of a record that holds a reason, our own or another program's."""


class KubernetesReason(StrEnum):
    """Reasons that Kubernetes gives and that we look for."""

    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """Of a Job that reached ``activeDeadlineSeconds``."""
    OOM_KILLED = "OOMKilled"
    """Of a container that used more memory than its limit."""
    START_ERROR = "StartError"
    """Of a container that the node's runtime could not start; its message is the runtime's."""
    EVICTED = "Evicted"
    """Of a pod that the kubelet ended."""
    ERR_IMAGE_PULL = "ErrImagePull"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    INVALID_IMAGE_NAME = "InvalidImageName"
    POD_INITIALIZING = "PodInitializing"
    CONTAINER_CREATING = "ContainerCreating"
    PULLING = "Pulling"
    """Of an Event: the kubelet pulls an image."""
    PULLED = "Pulled"


class ConditionType(Word):
    """The conditions of a run."""

    ACCEPTED = "Accepted", "The spec is valid, and everything that it names was found and pinned."
    SECRETS_READY = "SecretsReady", "Every name in environment.secrets has a value."
    STORAGE_ACCESS = "StorageAccess", "The run's credentials for storage are valid and renewed."
    SCHEDULED = "Scheduled", "All pods of the attempt are on nodes."
    RUNNING = "Running", "The trainer is at work."
    CHECKPOINTS_SYNCED = "CheckpointsSynced", "The run's files in storage can be read."
    METRICS_SENT = (
        "MetricsSent",
        "Weights & Biases gets the run's metrics. Set once something was in the way.",
    )
    SCORE_KEPT = (
        "ScoreKept",
        "The held-out score is not worse than before training. Set once both are known.",
    )
    SUCCEEDED = "Succeeded", "The run has succeeded; Unknown until it has ended."
    READY = "Ready", "The run is as it should be (kstatus): not waiting for a person, not failed."
    RECONCILING = "Reconciling", "The operator is not done with a change (kstatus)."
    STALLED = "Stalled", "The run has failed and stays so (kstatus)."


class Phase(Word):
    """One word for people; programs read conditions. New words may come."""

    PENDING = "Pending", "The run waits for what it needs, or for quota."
    STARTING = "Starting", "The Job exists; its pods are being scheduled and prepared."
    RUNNING = "Running", "The trainer is at work."
    RETRYING = "Retrying", "An attempt ended, and the next one is being started."
    SUSPENDED = "Suspended", "The run is paused by spec.control.suspend, or a budget is used up."
    CANCELLING = "Cancelling", "The run was cancelled; the trainer saves and stops."
    SUCCEEDED = "Succeeded", "Result and adapter are in storage."
    FAILED = "Failed", "The run has failed; status.failure says why."
    CANCELLED = "Cancelled", "The run was cancelled; its checkpoints are kept."


TERMINAL: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})
"""Phases of a run that has ended; it stays in them."""


class Activity(Word):
    """What a pod does."""

    STARTING = "Starting", "The pod's containers are being created."
    PULLING_IMAGE = "Pulling image", "The node pulls the trainer image."
    DOWNLOADING = "Downloading", "The base model is being downloaded."
    INSTALLING = "Installing", "The environment and its packages are being installed."
    LOADING = "Loading", "The trainer loads the environment and the model."
    TRAINING = "Training", "The trainer is at work."
    EVALUATING = "Evaluating", "The trainer answers and scores held-out examples."
    UPLOADING = "Uploading", "Training is done; the last checkpoints and the adapter are uploaded."

    def with_detail(self, detail: str) -> str:
        """Return the activity as a heartbeat shows it, with how far it is."""
        return f"{self} ({detail})"
