"""Every name, label and storage key of the project, each built in exactly one function.

Nothing else in the code concatenates these strings; a rename happens here and nowhere else.
"""

import hashlib
import re
from typing import Final, NamedTuple

GROUP: Final = "flashrun.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "FlashRun"
PLURAL: Final = "flashruns"
FIELD_MANAGER: Final = "flashrun"
CLI_FIELD_MANAGER: Final = "flash-cli"

RUN_NAME_LIMIT: Final = 52
"""Longest run name."""
_STEM_LIMIT: Final = 38
"""How much of a run's name the names of its objects repeat: with every suffix they then have at
most 63 characters."""
_TAG_LENGTH: Final = 10
"""Hex digits, of the hash of a run's uid, in the names of its objects."""
_DIGEST_LENGTH: Final = 8
"""Hex digits, of the digest of a resolved spec, in the name of its ConfigMap."""

RUN_LABEL: Final = f"{GROUP}/run"
RUN_UID_LABEL: Final = f"{GROUP}/run-uid"
SERVED_BY_LABEL: Final = f"{GROUP}/served-by"
"""On what an operator makes in a namespace that it follows: the operator's own namespace."""
SECRETS_LABEL: Final = f"{GROUP}/secrets"
"""Marks a Secret whose keys FlashRuns of its namespace may name in ``spec.secretRefs``."""
SWEEP_LABEL: Final = f"{GROUP}/sweep"
"""Name of the sweep of a run, for ``kubectl get -l``; what counts is ``spec.sweep``."""
JOB_NUMBER_LABEL: Final = f"{GROUP}/job"
"""Number of a run's Job, counted from 0; its pods have it, too."""
POD_INDEX_LABEL: Final = "batch.kubernetes.io/job-completion-index"
"""Position of a pod in its Indexed Job, which Kubernetes sets; the pod with 0 leads."""
SUSPENDED_ANNOTATION: Final = f"{GROUP}/suspended"
"""On a Workload of Kueue that the operator has deactivated, because its run is suspended."""
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
"""On a Job: the LocalQueue of Kueue in which it waits."""
QUEUED_JOB_LABEL: Final = "kueue.x-k8s.io/job-uid"
"""On a Workload of Kueue: the uid of its Job."""
USER_ANNOTATION: Final = f"{GROUP}/user"
"""On a run: who submitted it, as the API server calls them; ``flash`` writes it."""
POOL_ANNOTATION: Final = f"{GROUP}/pool"
"""Name of the pool that a Job runs in."""
SHARDED_ANNOTATION: Final = f"{GROUP}/sharded"
"""Marks a Job whose model is spread over its GPUs."""
EXPIRES_ANNOTATION: Final = f"{GROUP}/access-expires"
"""When the storage credentials in a Secret expire; absent where they do not."""
POLICY_ANNOTATION: Final = f"{GROUP}/storage-policy"
"""Digest of the policy that limits the storage credentials in a Secret for people."""
NAME_LABEL: Final = "app.kubernetes.io/name"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
PUBLIC_CONFIG_MAP: Final = "flashrun-public"
STORAGE_USER_SECRET: Final = "flashrun-storage-user"
STORAGE_MODELS_SECRET: Final = "flashrun-storage-models"
"""Secret in the operator's namespace with the credentials of those who manage the model mirror."""
UPSTREAMS_SECRET: Final = "flashrun-upstreams"
"""Secret with the credentials of index, hub and proxy, in every served namespace."""
NETRC_KEY: Final = "netrc"
"""Key in it with the credentials of the package index, as pip reads them."""
HUB_KEY: Final = "hub.json"
"""Key in it with a ``HubAccess``."""
ACCESS_KEY: Final = "access.json"
"""Key of a Secret with storage credentials."""
SPEC_KEY: Final = "spec.json"
"""Key of a ConfigMap with a resolved spec, and the name of its copy in storage."""
SERVING_LABEL: Final = f"{GROUP}/serving"
"""Name of the server of adapters that an object of ``flash serve`` belongs to."""
SERVED_ANNOTATION: Final = f"{GROUP}/served"
"""On its pods: digest of what they serve, so that another list makes other pods."""
SERVED_KEY: Final = "adapters.json"
"""Key of a server's ConfigMap with its ``ServedList``; the spec of a run is beside it."""
GPU_RESOURCE: Final = "nvidia.com/gpu"
WANDB_API_KEY: Final = "WANDB_API_KEY"

REF: Final = re.compile(
    r"(?P<run>[a-z](?:[-a-z0-9]{0,50}[a-z0-9])?)(?:/step-(?P<step>0|[1-9]\d{0,8}))?"
)
NO_REF: Final = (
    "is not an adapter reference: use <run> or <run>/step-N, as printed by flash status and flash "
    "checkpoints"
)
_JOB_SUFFIX = re.compile(r"-[1-9]\d{0,2}")
_NUMBER: Final = r"(?:0|[1-9][0-9]{0,8})"
"""A number in a key, as we write it: ASCII digits, without leading zeros."""
_ATTEMPT_KEY = re.compile(rf"(?P<attempt>{_NUMBER})(?:/|$)")
_ROLLOUTS_KEY = re.compile(r"(?P<kind>eval-)?step-(?P<step>[0-9]{8,9})\.jsonl")
_METRICS_PART_KEY = re.compile(
    rf"attempt-(?P<attempt>[1-9][0-9]{{0,8}})/after-(?P<after>{_NUMBER})-part-(?P<number>{_NUMBER})"
    r"\.jsonl"
)
_STEP_KEY = re.compile(rf"attempt-(?P<attempt>{_NUMBER})/step-(?P<step>{_NUMBER})/(?P<rest>.+)")


def run_name(epoch_seconds: int, entropy: str) -> str:
    """Return a new run's name; ``entropy`` is at least eight lower-case hex digits."""
    return f"flash-{epoch_seconds}-{entropy[:8]}"


def run_labels(run: str, uid: str) -> dict[str, str]:
    """Return the labels of everything that belongs to one run."""
    return {
        NAME_LABEL: "flashrun",
        COMPONENT_LABEL: "trainer",
        MANAGED_BY_LABEL: "flashrun",
        RUN_LABEL: run,
        RUN_UID_LABEL: uid,
    }


def serving_labels(server: str) -> dict[str, str]:
    """Return the labels of everything that belongs to one server of adapters.

    The operator neither makes nor watches these objects.
    """
    return {
        NAME_LABEL: "flashrun",
        COMPONENT_LABEL: "server",
        MANAGED_BY_LABEL: CLI_FIELD_MANAGER,
        SERVING_LABEL: server,
    }


def server_name(run: str) -> str:
    """Return how the server of the adapters of ``run`` is called unless a name is chosen."""
    return f"{run}-serve"


def object_stem(run: str, uid: str) -> str:
    """Return what the names of a run's objects begin with.

    It contains the uid, so that a run which is created again under its old name shares no object
    with the earlier one: a kubelet keeps its copy of an immutable ConfigMap or Secret by name.
    """
    tag = hashlib.sha256(uid.encode()).hexdigest()[:_TAG_LENGTH]
    return f"{run[:_STEM_LIMIT].rstrip('-')}-{tag}"


def job_name(run: str, uid: str, number: int) -> str:
    """Return the name of the run's Job ``number``, counted from 0; most runs need only Job 0."""
    stem = object_stem(run, uid)
    return stem if number == 0 else f"{stem}-{number}"


def parse_job_number(run: str, uid: str, job: str) -> int | None:
    """Return the number of the run's Job that is named ``job``; None for any other name."""
    suffix = job.removeprefix(object_stem(run, uid))
    number = 0 if not suffix else int(suffix[1:]) if _JOB_SUFFIX.fullmatch(suffix) else None
    return number if number is not None and job == job_name(run, uid, number) else None


def secrets_name(run: str, uid: str) -> str:
    """Return the Secret with the values of the names that the run lists."""
    return f"{object_stem(run, uid)}-secrets"


def storage_secret_name(run: str, uid: str) -> str:
    """Return the Secret with S3 credentials that reach only this run's keys."""
    return f"{object_stem(run, uid)}-storage"


def spec_config_map_name(run: str, uid: str, digest: str) -> str:
    """Return the ConfigMap with the resolved spec that has this ``digest``."""
    return f"{object_stem(run, uid)}-spec-{digest[:_DIGEST_LENGTH]}"


def wandb_run_name(algorithm: str, run: str) -> str:
    """Return what a run is called at Weights & Biases unless its config says otherwise."""
    return f"flash-{algorithm}-{run}"


def peers_service_name(job: str) -> str:
    """Return the headless Service by which the pods of one Job with several nodes meet."""
    return f"{job}-peers"


def leader_host(job: str) -> str:
    """Return the DNS name, within the namespace, of the pod that leads a Job of several nodes."""
    return f"{job}-0.{peers_service_name(job)}"


def submitted_secret_name(run: str) -> str:
    """Return the Secret that the command line makes from the submitter's shell."""
    return f"{run}-env"


class Ref(NamedTuple):
    """A short reference to an adapter: a run's final one, or one of its checkpoints."""

    run: str
    step: int | None

    def __str__(self) -> str:
        """Return the reference as people write it."""
        return self.run if self.step is None else checkpoint_ref(self.run, self.step)


def checkpoint_ref(run: str, step: int) -> str:
    """Return the short reference of one checkpoint, as ``flash checkpoints`` prints it."""
    return f"{run}/step-{step}"


def parse_ref(text: str) -> Ref:
    """Read ``<run>`` or ``<run>/step-N``.

    Raises:
        ValueError: one sentence that says what is allowed.
    """
    match = REF.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} {NO_REF}")
    step = match["step"]
    return Ref(match["run"], None if step is None else int(step))


# --- storage keys: relative to the bucket, see docs/storage.md ----------------------------------


RUNS_PREFIX: Final = "runs/"
ENDINGS_PREFIX: Final = "endings/"
ENVIRONMENTS_PREFIX: Final = "environments/"
MODELS_PREFIX: Final = "models/"
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MODEL_ID: Final = re.compile(r"(?=.{3,128}$)[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_MODEL_REVISION: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


def org_prefix(org: str) -> str:
    """Return the prefix of the environments of ``org``."""
    return f"{ENVIRONMENTS_PREFIX}{org}/"


def environment_prefix(environment_id: str) -> str:
    """Return the prefix of one environment's packages; ``environment_id`` is ``<org>/<env>``."""
    return f"{ENVIRONMENTS_PREFIX}{environment_id}/"


def environment_package_key(environment_id: str, digest: str) -> str:
    """Return the key of one package; ``digest`` is the SHA-256 of its bytes in hex."""
    return f"{environment_prefix(environment_id)}{digest}.tar.gz"


def environment_latest_key(environment_id: str) -> str:
    """Return the key of the pointer to an environment's newest package."""
    return f"{environment_prefix(environment_id)}latest.json"


def is_model_id(text: str) -> bool:
    """Return whether ``text`` can be the id of a mirrored model: ``<org>/<name>``."""
    return _MODEL_ID.fullmatch(text) is not None


def is_model_revision(text: str) -> bool:
    """Return whether ``text`` can be the revision of a mirrored model."""
    return _MODEL_REVISION.fullmatch(text) is not None


def model_revisions_prefix(model_id: str) -> str:
    """Return the prefix of every revision of a model in the mirror."""
    return f"{MODELS_PREFIX}{model_id}/"


def model_prefix(model_id: str, revision: str) -> str:
    """Return the prefix of one revision of a model in the mirror."""
    return f"{model_revisions_prefix(model_id)}{revision}/"


def model_manifest_key(model_id: str, revision: str) -> str:
    """Return the key of a mirrored model's manifest, written last."""
    return f"{model_prefix(model_id, revision)}manifest.json"


def is_namespace(text: str) -> bool:
    """Return whether ``text`` can be the name of a namespace, which is an RFC 1123 label."""
    return _NAMESPACE.fullmatch(text) is not None


def namespace_prefix(namespace: str) -> str:
    """Return the prefix of every run of one namespace."""
    return f"{RUNS_PREFIX}{namespace}/"


def run_name_prefix(namespace: str, run: str) -> str:
    """Return the prefix of every run that ever had this name."""
    return f"{namespace_prefix(namespace)}{run}/"


def run_prefix(namespace: str, run: str, uid: str) -> str:
    """Return the prefix that holds everything of one run."""
    return f"{run_name_prefix(namespace, run)}{uid}/"


def spec_key(prefix: str) -> str:
    """Return the key of the resolved spec under a run's prefix."""
    return f"{prefix}{SPEC_KEY}"


def run_record_key(prefix: str) -> str:
    """Return the key of the operator's copy of a run, under the run's prefix."""
    return f"{prefix}run.json"


def metrics_prefix(prefix: str) -> str:
    """Return what the keys of all metrics of a run begin with."""
    return f"{prefix}metrics"


def metrics_key(prefix: str) -> str:
    """Return the key of the one file with the metrics of a run that an earlier version began."""
    return f"{metrics_prefix(prefix)}.jsonl"


def metrics_part_key(prefix: str, attempt: int, after: int, number: int) -> str:
    """Return the key of one part of the metrics of an attempt that continues ``after`` a step."""
    folder = f"{metrics_prefix(prefix)}/attempt-{attempt}"
    return f"{folder}/after-{after}-part-{number}.jsonl"


class MetricsPartKey(NamedTuple):
    """A key of a part of the metrics, taken apart."""

    attempt: int
    after: int
    """The step after which the attempt continues."""
    number: int


def parse_metrics_part_key(prefix: str, key: str) -> MetricsPartKey | None:
    """Return the parts of ``key`` when it has metrics of the run at ``prefix``."""
    folder = f"{metrics_prefix(prefix)}/"
    name = key.removeprefix(folder)
    match = _METRICS_PART_KEY.fullmatch(name) if key.startswith(folder) else None
    return match and MetricsPartKey(*map(int, match.group("attempt", "after", "number")))


def result_key(prefix: str) -> str:
    """Return the key of the terminal result under a run's prefix."""
    return f"{prefix}result.json"


def control_key(prefix: str) -> str:
    """Return the key of the operator's requests to a live trainer."""
    return f"{prefix}control.json"


def log_key(prefix: str, attempt: int) -> str:
    """Return the key of one attempt's log."""
    return f"{logs_prefix(prefix)}attempt-{attempt}.log"


def pod_log_key(prefix: str, pod: str) -> str:
    """Return the key of the log of a pod's init containers."""
    return f"{logs_prefix(prefix)}pod-{pod}.log"


def logs_prefix(prefix: str) -> str:
    """Return the prefix of all logs of a run."""
    return f"{prefix}logs/"


def rollouts_prefix(prefix: str) -> str:
    """Return the prefix of everything that a run has sampled and stored."""
    return f"{prefix}rollouts/"


def rollouts_key(prefix: str, step: int) -> str:
    """Return the key of the sampled rollouts of one step."""
    return f"{rollouts_prefix(prefix)}step-{step:08d}.jsonl"


def eval_rollouts_key(prefix: str, step: int) -> str:
    """Return the key of the answers of the evaluation after one step; 0 is before training."""
    return f"{rollouts_prefix(prefix)}eval-step-{step:08d}.jsonl"


class RolloutsKey(NamedTuple):
    """A key of rollouts, taken apart."""

    step: int
    evaluated: bool
    """Whether they are the answers of an evaluation."""


def parse_rollouts_key(prefix: str, key: str) -> RolloutsKey | None:
    """Return the parts of ``key`` when it has rollouts of the run at ``prefix``."""
    folder = rollouts_prefix(prefix)
    match = _ROLLOUTS_KEY.fullmatch(key.removeprefix(folder)) if key.startswith(folder) else None
    return match and RolloutsKey(int(match["step"]), match["kind"] is not None)


def attempts_prefix(prefix: str) -> str:
    """Return what the keys of every attempt of a run begin with."""
    return f"{prefix}attempt-"


def attempt_prefix(prefix: str, attempt: int) -> str:
    """Return the prefix of one attempt."""
    return f"{attempts_prefix(prefix)}{attempt}/"


def attempt_of(prefix: str, key: str) -> int | None:
    """Return the number of the attempt that ``key`` lies below, of the run at ``prefix``."""
    folder = attempts_prefix(prefix)
    match = _ATTEMPT_KEY.match(key.removeprefix(folder)) if key.startswith(folder) else None
    return match and int(match["attempt"])


def claim_key(prefix: str, attempt: int) -> str:
    """Return the key that the pod owning an attempt creates first."""
    return f"{attempt_prefix(prefix, attempt)}claim.json"


def packages_key(prefix: str, attempt: int) -> str:
    """Return the key of the list of packages that one attempt ran with."""
    return f"{attempt_prefix(prefix, attempt)}packages.txt"


def step_prefix(prefix: str, attempt: int, step: int) -> str:
    """Return the prefix of one checkpoint, with ``adapter/`` and ``state/`` below it."""
    return f"{attempt_prefix(prefix, attempt)}step-{step}/"


def adapter_prefix(prefix: str) -> str:
    """Return the prefix of a run's final adapter."""
    return f"{prefix}adapter/"


def adapter_folder(attempt: int) -> str:
    """Return the folder, beside the final adapter's manifest, of the files of one attempt.

    Two attempts may upload at once; the one that creates the manifest lists its own.
    """
    return f"attempt-{attempt}"


MANIFEST: Final = "manifest.json"
"""File name of the commit marker; a folder without it does not exist."""

STATE_MANIFEST: Final = "state.json"
"""File name of the second marker, of a checkpoint whose full trainer state was kept for resume."""


class StepKey(NamedTuple):
    """A key below one checkpoint, taken apart."""

    attempt: int
    step: int
    path: str


def parse_step_key(prefix: str, key: str) -> StepKey | None:
    """Return the parts of ``key`` when it lies below a checkpoint of the run at ``prefix``."""
    match = _STEP_KEY.fullmatch(key.removeprefix(prefix)) if key.startswith(prefix) else None
    return match and StepKey(int(match["attempt"]), int(match["step"]), match["rest"])


def ending_key(namespace: str, run: str, uid: str) -> str:
    """Return the key of the operator's record of how a run ended; no tenant can write it."""
    return f"{ENDINGS_PREFIX}{namespace}/{run}/{uid}.json"


KNOWN_RUNS_PREFIX: Final = "known/"


def known_run_key(installation: str, namespace: str, run: str, uid: str) -> str:
    """Return the key by which the operator remembers a run that has not ended.

    ``installation`` tells clusters that share a bucket apart; no tenant can write the key.
    """
    return f"{KNOWN_RUNS_PREFIX}{installation}/{namespace}/{run}/{uid}"


class KnownRunKey(NamedTuple):
    """The key of a run that the operator remembers, taken apart."""

    installation: str
    namespace: str
    run: str
    uid: str


def parse_known_run_key(key: str) -> KnownRunKey | None:
    """Return the parts of the key of a run that the operator remembers; None for any other key."""
    parts = key.removeprefix(KNOWN_RUNS_PREFIX).split("/")
    return KnownRunKey(*parts) if len(parts) == len(KnownRunKey._fields) else None


PROBE_PREFIX: Final = "probe/"


def operator_probe_prefix(installation: str) -> str:
    """Return the prefix below which the operator tries what storage can do."""
    return f"{PROBE_PREFIX}installations/{installation}/"


def namespace_probe_prefix(namespace: str) -> str:
    """Return the prefix below which people of a namespace try what storage can do."""
    return f"{PROBE_PREFIX}namespaces/{namespace}/"


HEARTBEAT_PREFIX: Final = "live/"


def heartbeat_key(uid: str) -> str:
    """Return the key of a running run's progress."""
    return f"{HEARTBEAT_PREFIX}{uid}.json"


def heartbeat_uid(key: str) -> str:
    """Return the run uid that a key below ``live/`` belongs to."""
    return key.removeprefix(HEARTBEAT_PREFIX).removesuffix(".json")
