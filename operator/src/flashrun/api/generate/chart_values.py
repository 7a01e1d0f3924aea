"""The chart's values → ``values.schema.json``. ``python -m flashrun.api.generate.chart_values``.

Most values are the platform's settings, so their schema is the settings' schema; what only the
chart needs (images, replicas, rights) is modelled here. Helm refuses unknown keys and wrong types
by it before anything reaches the cluster.
"""

import json
import sys
from typing import Annotated, Any

from pydantic import Field

from flashrun.api.base import Section
from flashrun.api.catalog import Model
from flashrun.api.label_selector import NO_OTHER_KEYS, Annotations, Labels, LabelSelector
from flashrun.api.platform import (
    Address,
    BudgetSettings,
    DnsPolicy,
    EnvironmentSettings,
    Image,
    ObjectName,
    OwnProxies,
    PodUser,
    Pool,
    PullPolicy,
    Retention,
    StorageSettings,
    TrainerSettings,
)

Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]


class CrdValues(Section):
    """Who installs the CRD."""

    install: bool = True
    """Install the CRD with this release."""
    keep: bool = True
    """Keep it, and with it every FlashRun, when the release is uninstalled."""


class OperatorValues(Section):
    """The operator's Deployment."""

    image: Image
    """Image, by digest."""
    image_pull_policy: PullPolicy = "IfNotPresent"
    """When the kubelet pulls the image."""
    pull_secrets: tuple[ObjectName, ...] = ()
    """Secrets of the release's namespace with which it is pulled."""
    replicas: int = Field(default=1, ge=0)
    """One acts, the others stand by."""
    resources: dict[str, Any] = {}
    """Requests and limits of the container."""
    node_selector: Labels = {}
    """Labels of nodes for its pods."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Taints that its pods tolerate."""
    affinity: dict[str, Any] = {}
    """Affinity of its pods."""
    pod_labels: Labels = {}
    """Further labels of its pods."""
    pod_annotations: Annotations = {}
    """Further annotations of its pods."""
    dns_policy: DnsPolicy = "ClusterFirst"
    """DNS policy of its pods."""
    run_as_user: PodUser = 65532
    """User and group of the operator; ``cluster``: OpenShift chooses them."""
    publish_free_gpus: bool = True
    """May list nodes and pods of the whole cluster, to publish how many GPUs are free."""
    proxy: OwnProxies = {}
    """The operator's own way to storage, if it is through a proxy."""


class TracesValues(Section):
    """Where the operator sends traces of runs."""

    endpoint: Address = ""
    """Base address of an OpenTelemetry collector, for OTLP over HTTP; empty for no traces."""
    headers_secret: ObjectName = ""
    """Secret of the release's namespace with the key headers, as in ``authorization=Bearer …``."""


class MonitoringValues(Section):
    """Objects for Prometheus and Grafana, and traces."""

    pod_monitor: bool = False
    """Make a PodMonitor for the Prometheus operator."""
    service_monitor: bool = False
    """Make a Service of the metrics and a ServiceMonitor, where Prometheus selects those."""
    prometheus_rule: bool = False
    """Make a PrometheusRule with the alerts."""
    dashboard: bool = False
    """Make a ConfigMap with the dashboard, which Grafana's sidecar loads."""
    labels: Labels = {}
    """Labels by which Prometheus selects the first three."""
    dashboard_labels: Labels = {"grafana_dashboard": "1"}
    """Labels by which Grafana's sidecar selects the ConfigMap."""
    traces: TracesValues = TracesValues()
    """Where the operator sends one trace for each run."""


class WebIdentityValues(Section):
    """A token that the cluster signs, for which STS answers keys."""

    enabled: bool = False
    """Use it instead of a Secret."""
    role_arn: str = ""
    """Role that the token may take; MinIO may need none."""
    audience: str = "sts.amazonaws.com"
    """For whom the token is."""


class StorageValues(StorageSettings):
    """Storage, and where its keys come from."""

    existing_secret: ObjectName = ""
    """Secret of the release's namespace with accessKey and secretKey, and without STS also with
    sharedAccessKey and sharedSecretKey."""
    access_key: str = ""
    """The operator's access key, for tests."""
    secret_key: str = ""
    """The operator's secret key, for tests."""
    shared_access_key: str = ""
    """Access key that trainers and users share if the store has no STS, for tests."""
    shared_secret_key: str = ""
    """Its secret key, for tests."""
    web_identity: WebIdentityValues = WebIdentityValues()
    """Instead of keys: a token of the operator's service account (on AWS: IRSA)."""


EgressRules = tuple[dict[str, Any], ...]
"""Rules of a NetworkPolicy; none for the chart's own."""


class EgressValues(Section):
    """What trainer pods connect to."""

    dns: EgressRules = ()
    """To name servers."""
    storage: EgressRules = ()
    """To ``storage.endpoint``."""
    hub: EgressRules = ()
    """To the hub."""
    index: EgressRules = ()
    """To the package index."""
    proxy: EgressRules = ()
    """To the proxy."""
    extra: EgressRules = ()
    """To what else environments need."""


class NetworkPolicyValues(Section):
    """What trainer pods may reach."""

    enabled: bool = True
    """Make a NetworkPolicy for trainer pods in each served namespace."""
    egress: EgressValues = EgressValues()
    egress_except: tuple[str, ...] = ()
    """Blocks of addresses that they may not reach."""


AllowedId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+\*?$", max_length=256)]
"""An id, or how ids begin, with ``*`` at the end."""


class PolicyValues(Section):
    """What runs of some namespaces may ask for."""

    namespaces: tuple[Namespace, ...] = ()
    """Where it holds; without any, in every namespace that is served."""
    models: tuple[AllowedId, ...] = ()
    """Base models that runs may train; without any, all."""
    environments: tuple[AllowedId, ...] = ()
    """Environments that runs may use; without any, all."""
    max_steps: int = Field(default=0, ge=0)
    """Most optimizer steps, which a run then has to name; 0: no limit."""
    max_gpu_hours: float = Field(default=0, ge=0)
    """Largest budget of GPU hours, which a run then has to name; 0: no limit."""
    max_gpus: int = Field(default=0, ge=0)
    """Most GPUs that a run gets; 0: no limit."""


class Values(Section):
    """The values of the chart."""

    namespaces: Annotated[tuple[Namespace, ...], Field(json_schema_extra={"uniqueItems": True})] = (
        "default",
    )
    """Namespaces whose FlashRuns are served; they must exist."""
    namespace_selector: LabelSelector = LabelSelector()
    """With ``namespaces: []``: labels of the namespaces that are served, also of those that
    come later."""
    all_namespaces: bool = False
    """With ``namespaces: []``: every namespace is served but ``kube-*`` and the release's
    own."""
    crds: CrdValues = CrdValues()
    operator: OperatorValues
    storage: StorageValues
    ca_bundle: str = ""
    """PEM certificates that pods shall trust instead of their image's own."""
    trainer: TrainerSettings
    pools: tuple[Pool, ...] = Field(min_length=1)
    """Pools of GPUs; a run gets the one in which its GPUs cost least."""
    models: tuple[Model, ...] = ()
    """Additions to the built-in catalog."""
    models_from_mirror: bool = False
    """Runs may use each complete model of the mirror, also without an entry in the catalog."""
    mirror_readable: bool = False
    """People of the served namespaces may read the weights in the mirror, which servers need."""
    environments: EnvironmentSettings = EnvironmentSettings()
    policies: tuple[PolicyValues, ...] = ()
    """What runs may ask for, checked by the API server when a run is created."""
    quotas: Annotated[dict[Namespace, dict[str, int | str]], NO_OTHER_KEYS] = {}
    """Hard limits of a ResourceQuota by namespace."""
    budgets: Annotated[dict[Namespace, BudgetSettings], NO_OTHER_KEYS] = {}
    """GPU hours that the runs of a namespace may use in a month; without an entry, no limit."""
    retention: Retention = Retention()
    network_policy: NetworkPolicyValues = NetworkPolicyValues()
    monitoring: MonitoringValues = MonitoringValues()


def schema() -> dict[str, Any]:
    """Return the JSON Schema; Helm adds ``global`` to the values of every chart."""
    made = Values.model_json_schema(by_alias=True)
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["properties"]["global"] = {"type": "object"}
    return made


def to_json() -> str:
    """Return the schema as the chart's file holds it."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(to_json())
