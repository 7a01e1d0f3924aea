"""The platform's settings: Helm values, rendered to one YAML file, read by the operator.

None of these settings is a key of a user's config. ``status.resolved`` has those that a run uses.
"""

import re
from collections import Counter
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from flashrun.api import names
from flashrun.api.base import Section
from flashrun.api.catalog import Model
from flashrun.api.label_selector import NO_OTHER_KEYS, Annotations, Labels, LabelSelector
from flashrun.api.quantities import Quantity, parse_quantity
from flashrun.api.storage_endpoint import bucket_arn, is_aws

_INT32: Final = 2**31 - 1
"""Largest number of many fields of Kubernetes; as seconds, longer than anybody waits."""

PodUser = Annotated[int, Field(ge=1, le=_INT32)] | Literal["cluster"]
"""Number of the user and the group of a pod, or ``cluster`` where the cluster chooses them."""

_HOST: Final = r"([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\])"
_PORT: Final = (
    r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
)
Address = Annotated[str, Field(pattern=rf"^(https?://{_HOST}{_PORT}(/[^@?#\s]*)?)?$")]
"""An http address without user and password: everybody who may view runs or pods can read it."""

ObjectName = Annotated[
    str,
    Field(
        max_length=253,
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$",
    ),
]
"""Name of an object of Kubernetes, or empty for none."""
Image = Annotated[str, Field(pattern=r"^\S+$")]
"""Reference of an image."""
DnsPolicy = Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default"]
"""How a pod finds names; ``None`` would need settings that a pod here cannot get."""
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
Resource = Annotated[
    str,
    Field(
        max_length=317,
        pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
    ),
]
"""An extended resource: its domain and its name."""
Variables = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z._-][A-Za-z0-9._-]*$")], str], NO_OTHER_KEYS
]
"""Environment variables of a container."""


def _proxies(user: str) -> tuple[AfterValidator, Any]:
    """Return the rule for addresses of proxies, in Python and in the schema.

    ``user`` is the pattern of what may stand before the host.
    """
    pattern = rf"^((https?://)?{user}{_HOST}{_PORT}/?)?$"

    def check(given: dict[str, str]) -> dict[str, str]:
        for name, address in given.items():
            if name != "no_proxy" and not re.fullmatch(pattern, address):
                raise ValueError(f"{name} is not the address of a proxy, such as http://host:port")
        return given

    schema: dict[str, Any] = {
        "properties": {
            f"{scheme}_proxy": {
                "type": "string",
                "pattern": pattern,
                "description": f"Proxy before servers of {scheme}, as in http://host:port.",
            }
            for scheme in ("http", "https")
        }
        | {
            "no_proxy": {
                "type": "string",
                "pattern": "^[^@]*$",
                "description": "Hosts and networks without a proxy, with commas between.",
            }
        }
    }
    return AfterValidator(check), Field(json_schema_extra=schema)


_ProxyVariable = Literal["http_proxy", "https_proxy", "no_proxy"]
Proxies = Annotated[
    dict[_ProxyVariable, Annotated[str, Field(pattern=r"^[^@]*$")]], *_proxies(user="")
]
"""The way to other servers through a proxy, which names no user."""
OwnProxies = Annotated[dict[_ProxyVariable, str], *_proxies(user=r"([^/\s]*@)?")]
"""The operator's own way, which may name a user and a password."""


class StorageSettings(Section):
    """Any S3 endpoint; its keys come from a Secret mounted into the operator."""

    endpoint: Annotated[str, Field(pattern=rf"^https?://{_HOST}{_PORT}$")]
    """``http://host:port`` or ``https://host``, as pods reach it."""
    bucket: Annotated[
        str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$")
    ] = "flashrun"
    """The bucket; it is created if it is missing."""
    region: Annotated[
        str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)?$")
    ] = "us-east-1"
    """The region, which signatures name."""
    addressing: Literal["path", "virtual"] | None = None
    """Where the bucket is in addresses: in the path or in the host name. By default in the host
    name on AWS, and in the path elsewhere."""
    sse: Literal["s3", "kms"] | None = None
    """Ask the store to encrypt every object: with its own keys (SSE-S3), or with ``sseKmsKey``
    (SSE-KMS, which needs https). By default as the bucket is set."""
    sse_kms_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9:/_.-]*$", max_length=512)] = ""
    """Key of ``kms``: its id or its ARN."""
    sts: bool = True
    """Ask the store for credentials limited to one run (AssumeRole with a session policy)."""
    role_arn: str = ""
    """Role to assume; stores such as MinIO need none."""
    credentials_seconds: int = Field(default=3600, ge=900, le=43200)
    """Lifetime of credentials. They are renewed at half of it while a run has pods, and not when it
    has ended: for so long at most they outlive a run, and trainers can do without the operator."""

    @model_validator(mode="after")
    def _a_key_encrypts(self) -> Self:
        if (self.sse == "kms") != bool(self.sse_kms_key):
            raise ValueError("sse: kms and sseKmsKey belong together: set both, or neither of them")
        if self.sse == "kms" and not self.endpoint.startswith("https://"):
            raise ValueError("sse: kms needs an endpoint with https")
        return self

    @property
    def bucket_arn(self) -> str:
        """How policies name the bucket."""
        return bucket_arn(self.endpoint, self.region, self.bucket)

    @property
    def policy_key(self) -> str:
        """The key that session policies have to allow; empty where policies know no keys.

        The actions of keys are AWS's. MinIO needs no right to use a key, and refuses policies that
        name one: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html
        """
        return self.sse_kms_key if is_aws(self.endpoint) else ""


class PoolShape(Section):
    """The part of a pool that decides whether a run fits, and on how many GPUs."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Its name, in status and in metrics."""
    gpus_per_node: int = Field(default=1, ge=1)
    """GPUs of one node."""
    max_nodes: int = Field(default=1, ge=1)
    """Nodes that one run may use; above 1, pods of a run reach each other over the network."""
    gpus_per_run: int = Field(default=1, ge=1)
    """GPUs that a run gets for speed, or as many of them as its batch can be divided by."""
    vram: float = Field(gt=0)
    """Memory of one GPU in GiB."""
    cost: float = Field(default=1, ge=0)
    """Relative cost of one GPU; the cheapest place that a run fits in is chosen."""

    @model_validator(mode="after")
    def _one_run_gets_what_the_nodes_have(self) -> Self:
        node, nodes, wanted = self.gpus_per_node, self.max_nodes, self.gpus_per_run
        if wanted > node * nodes:
            raise ValueError(
                f"gpusPerRun is {wanted}, but a run may use {nodes} x {node} GPUs here: lower it, "
                "or raise gpusPerNode or maxNodes"
            )
        if wanted > node and wanted % node:
            raise ValueError(
                f"gpusPerRun is {wanted}, and more than one node means whole nodes: use a multiple "
                f"of gpusPerNode = {node}"
            )
        return self


class Pool(PoolShape):
    """Nodes with one kind of GPU."""

    resource: Resource = names.GPU_RESOURCE
    """Extended resource that its nodes advertise."""
    cpu: Quantity = "4"
    """CPU request per GPU."""
    cpu_limit: Quantity | None = None
    """CPU limit per GPU; None: no limit, unless the namespace has a LimitRange."""
    memory: Quantity = "16Gi"
    """Memory request and limit per GPU."""
    ephemeral_storage: Quantity | None = None
    """Local disk that a pod requests and may use per GPU; None: no request and no limit."""
    node_selector: Labels = {}
    """Labels of its nodes."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Taints of its nodes that trainer pods tolerate."""
    runtime_class: ObjectName = ""
    """RuntimeClass of trainer pods."""

    @model_validator(mode="after")
    def _the_limit_covers_the_request(self) -> Self:
        if self.cpu_limit is not None and parse_quantity(self.cpu_limit) < parse_quantity(self.cpu):
            raise ValueError(
                f"cpuLimit is {self.cpu_limit}, and cpu, which a pod requests, is {self.cpu}: "
                "raise cpuLimit, or lower cpu"
            )
        return self


class PodSettings(Section):
    """What pods with the trainer image have, whether they train or serve."""

    image: Image
    """Image, by digest."""
    image_pull_policy: PullPolicy = "IfNotPresent"
    """When the kubelet pulls the image."""
    pull_secrets: tuple[ObjectName, ...] = ()
    """Secrets of the run's namespace with which it is pulled."""
    ca_bundle_config_map: ObjectName = ""
    """ConfigMap with ``ca.crt``, in each served namespace; empty for the image's own."""
    proxy: Proxies = {}
    """http_proxy, https_proxy, no_proxy."""
    proxy_secret: ObjectName = ""
    """Secret in the operator's namespace with ``username`` and ``password`` of the proxy."""
    shared_memory: Quantity = "2Gi"
    """Size of /dev/shm."""
    priority_class: ObjectName = ""
    """PriorityClass of trainer pods."""
    labels: Labels = {}
    """Further labels of Jobs and trainer pods."""
    annotations: Annotations = {}
    """Further annotations of trainer pods."""
    dns_policy: DnsPolicy = "ClusterFirst"
    """DNS policy of trainer pods."""
    run_as_user: PodUser = 1000
    """User and group of trainer pods; ``cluster``: OpenShift chooses them."""

    @property
    def proxies_with_credentials(self) -> dict[str, str]:
        """Variables of proxies that ask for credentials → their addresses without them."""
        proxies = {name.upper(): address for name, address in self.proxy.items()}
        proxies.pop("NO_PROXY", None)
        return proxies if self.proxy_secret else {}


class TrainerSettings(PodSettings):
    """How trainer pods are made."""

    retries: int = Field(default=3, ge=0, le=100)
    """Counted retries of one run."""
    wall_clock_seconds: int = Field(default=86400, ge=60, le=_INT32)
    """Longest time of a run, over all its attempts."""
    grace_seconds: int = Field(default=360, ge=10, le=_INT32)
    """Time from SIGTERM to SIGKILL: saving and ``upload_timeout_seconds`` fit in."""
    stall_seconds: int = Field(default=1800, ge=60, le=_INT32)
    """An attempt without a heartbeat for so long is ended and retried."""
    upload_timeout_seconds: int = Field(default=300, ge=10, le=_INT32)
    """Longest time in which an upload makes no progress."""
    pip_index_url: Address = ""
    """Package index of trainer pods; by default the public one."""
    pip_index_secret: ObjectName = ""
    """Secret in the operator's namespace with ``username`` and ``password`` of that index."""
    pip_url_hosts: tuple[Annotated[str, Field(pattern=r"^[a-z0-9.-]+(:[0-9]+)?$")], ...] = ()
    """Hosts whose https addresses ``[environment].pip`` may name; none by default."""
    hub_endpoint: Address = ""
    """Model hub of trainer pods; by default the public one."""
    hub_secret: ObjectName = ""
    """Secret in the operator's namespace with ``token``, or with ``username`` and ``password``, of
    the model hub."""
    environment: Variables = {}
    """Further variables for every trainer pod, such as OMP_NUM_THREADS."""
    model_cache_claim: ObjectName = ""
    """ReadWriteMany claim that keeps models between pods; empty for a fresh folder each time."""
    queue: ObjectName = ""
    """Kueue's LocalQueue; empty without Kueue."""

    @model_validator(mode="after")
    def _the_last_upload_fits_into_the_grace(self) -> Self:
        if self.grace_seconds <= self.upload_timeout_seconds:
            raise ValueError(
                f"graceSeconds is {self.grace_seconds} and uploadTimeoutSeconds "
                f"{self.upload_timeout_seconds}: a pod that is asked to stop would be killed "
                "while it uploads; make graceSeconds the larger one"
            )
        return self

    @model_validator(mode="after")
    def _credentials_are_of_an_address(self) -> Self:
        if self.pip_index_secret and not self.pip_index_url:
            raise ValueError("pipIndexSecret is set without an index: set pipIndexUrl")
        if self.proxy_secret and not self.proxy:
            raise ValueError("proxySecret is set without a proxy: set proxy")
        return self

    @property
    def needs_credentials(self) -> bool:
        """Whether an index, a hub or a proxy asks for credentials."""
        return bool(self.pip_index_secret or self.hub_secret or self.proxy_secret)


Org = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,63}$")]
"""The part of an environment's id before the slash."""


class EnvironmentSettings(Section):
    """Whose environments are whose."""

    owners: Annotated[dict[Org, tuple[str, ...]], NO_OTHER_KEYS] = {}
    """Org of environments → namespaces that push, delete and use them, instead of the namespace of
    the org's own name. An org that is bound to several namespaces is shared: each of them may
    replace what runs of the others execute."""


class BudgetSettings(Section):
    """What the runs of a namespace may use together."""

    gpu_hours_per_month: float = Field(gt=0, le=100_000_000)
    """GPU hours in a calendar month (UTC), as ``flash cost`` counts them. When they are used up,
    runs save and wait for the next month."""


class Retention(Section):
    """How long finished objects are kept."""

    finished_job_seconds: int = Field(default=3600, ge=0, le=_INT32)
    """How long a finished Job and its pods stay."""


class Platform(Section):
    """All settings of one installation."""

    namespaces: tuple[str, ...] = ()
    """Namespaces whose FlashRuns are served."""
    namespace_selector: LabelSelector | None = None
    """Instead: labels of the namespaces that are served."""
    all_namespaces: bool = False
    """Instead: every namespace is served but those of the cluster and the operator's own."""
    storage: StorageSettings
    trainer: TrainerSettings
    pools: tuple[Pool, ...] = Field(min_length=1)
    models: tuple[Model, ...] = ()
    """Additions to the built-in catalog; an addition replaces the built-in model of its id."""
    models_from_mirror: bool = False
    """Runs may use each complete model of the mirror, also without an entry in the catalog."""
    mirror_readable: bool = False
    """People of the served namespaces may read the weights in the mirror, which servers need."""
    environments: EnvironmentSettings = EnvironmentSettings()
    budgets: dict[str, BudgetSettings] = {}
    """Budget of GPU hours by namespace; one without an entry has no limit."""
    retention: Retention = Retention()

    @model_validator(mode="before")
    @classmethod
    def _one_namespace_by_default(cls, given: Any) -> Any:
        ways = ("namespaces", "namespaceSelector", "allNamespaces")
        if isinstance(given, dict) and given.keys().isdisjoint(
            (*ways, "namespace_selector", "all_namespaces")
        ):
            return {**given, "namespaces": ["default"]}
        return given

    @model_validator(mode="after")
    def _names_are_given_once(self) -> Self:
        for table, names_in_it in (
            ("pools", [pool.name for pool in self.pools]),
            ("models", [model.id for model in self.models]),
        ):
            for name, number in Counter(names_in_it).items():
                if number > 1:
                    raise ValueError(f"{table}: {name} is there {number} times, and may be once")
        return self

    @model_validator(mode="after")
    def _namespaces_are_given_in_one_way(self) -> Self:
        selector = self.namespace_selector
        if selector is not None and selector.is_empty:
            raise ValueError(
                "namespaceSelector is empty: give it matchLabels or matchExpressions, or set "
                "allNamespaces"
            )
        ways = (bool(self.namespaces), selector is not None, self.all_namespaces)
        if sum(ways) != 1:
            raise ValueError(
                "namespaces, namespaceSelector and allNamespaces are alternatives: set one of them"
            )
        return self

    @property
    def follows_namespaces(self) -> bool:
        """Whether the operator finds out by itself which namespaces it serves."""
        return self.all_namespaces or self.namespace_selector is not None
