"""The Kubernetes objects of a server of adapters: ConfigMap, Deployment and Service.

People own them: the operator neither makes nor watches them. The pod names Secrets of its namespace
and holds none of their values: the storage access of people, which the operator renews, and the
credentials of the model hub, if the platform has any.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flashrun.api import names, pod
from flashrun.api.platform import PodSettings, Pool
from flashrun.api.records import ResolvedRun
from flashrun.api.served import ServedList, ServingEngine
from flashrun.plan import pins
from flashrun.plan.objects import (
    container_environment,
    container_security,
    pod_security,
    pool_nodes,
)
from flashrun.plan.types import Object

PROBE_SECONDS: Final = 10
START_TRIES: Final = 720
"""Probes until a server has to serve: two hours for the download of a large base model."""


@dataclass(frozen=True)
class AdapterServer:
    """What a server serves, and the pod that it gets."""

    name: str
    namespace: str
    engine: ServingEngine
    run: ResolvedRun
    """One of the runs: its base model is the one of all."""
    served: ServedList
    pods: PodSettings
    """What pods have on this platform; of the image, which one."""
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    gpus: int = 0
    pool: Pool | None = None
    """Where the GPUs are; None for the engine that needs none."""


def serving_objects(server: AdapterServer) -> tuple[Object, ...]:
    """Return the objects of a server, in the order in which they are applied."""
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(server),
        "data": {
            names.SPEC_KEY: pins.spec_text(server.run),
            names.SERVED_KEY: server.served.model_dump_json(),
        },
    }
    return config_map, _deployment(server, config_map["data"]), _service(server)


def _metadata(server: AdapterServer) -> Object:
    return {
        "name": server.name,
        "namespace": server.namespace,
        "labels": names.serving_labels(server.name),
    }


def _service(server: AdapterServer) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(server),
        "spec": {
            "selector": {names.SERVING_LABEL: server.name},
            "ports": [{"name": "http", "port": pod.SERVING_PORT, "targetPort": "http"}],
        },
    }


def _deployment(server: AdapterServer, data: Any) -> Object:
    digest = pins.digest_of(data[names.SPEC_KEY] + data[names.SERVED_KEY])
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(server),
        "spec": {
            "replicas": 1,
            # Never two pods at once: there may be no GPU for the second one.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {names.SERVING_LABEL: server.name}},
            "template": {
                "metadata": {
                    "labels": names.serving_labels(server.name),
                    "annotations": {names.SERVED_ANNOTATION: digest},
                },
                "spec": _pod_spec(server),
            },
        },
    }


def _pod_spec(server: AdapterServer) -> Object:
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "dnsPolicy": server.pods.dns_policy,
        "securityContext": pod_security(server.pods.run_as_user),
        "containers": [_container(server)],
        "volumes": _volumes(server),
    }
    optional = {
        **(pool_nodes(server.pool) if server.pool is not None else {}),
        "imagePullSecrets": [{"name": name} for name in server.pods.pull_secrets],
    }
    return spec | {key: value for key, value in optional.items() if value}


def _volumes(server: AdapterServer) -> list[Object]:
    volumes: list[Object] = [
        {"name": "spec", "configMap": {"name": server.name}},
        {"name": "storage", "secret": {"secretName": names.STORAGE_USER_SECRET}},
        {"name": "hub", "secret": _hub_secret()},
        *({"name": name, "emptyDir": {}} for name in ("model", "work", "tmp")),
        {
            "name": pod.SHARED_MEMORY_VOLUME,
            "emptyDir": {"medium": "Memory", "sizeLimit": server.pods.shared_memory},
        },
    ]
    if authorities := server.pods.ca_bundle_config_map:
        volumes.append({"name": "ca", "configMap": {"name": authorities}})
    return volumes


def _hub_secret() -> Object:
    """Return the source of the hub's credentials, which most platforms do not have."""
    items = [{"key": names.HUB_KEY, "path": names.HUB_KEY}]
    return {"secretName": names.UPSTREAMS_SECRET, "items": items, "optional": True}


def _container(server: AdapterServer) -> Object:
    mounts = {
        "spec": (pod.SPEC_FOLDER, True),
        "storage": (pod.STORAGE_FOLDER, True),
        "hub": (pod.HUB_FOLDER, True),
        "model": (pod.MODEL_FOLDER, False),
        "work": (pod.WORK_FOLDER, False),
        "tmp": ("/tmp", False),
        pod.SHARED_MEMORY_VOLUME: ("/dev/shm", False),
    }
    if server.pods.ca_bundle_config_map:
        mounts["ca"] = (pod.CA_FOLDER, True)
    variables = {
        pod.ENGINE_VARIABLE: server.engine.value,
        **({pod.GPUS_VARIABLE: str(server.gpus)} if server.gpus else {}),
        pod.SPEC_VARIABLE: pod.SPEC_FILE,
        pod.SERVED_VARIABLE: pod.SERVED_FILE,
        pod.STORAGE_VARIABLE: pod.STORAGE_FILE,
        pod.HUB_VARIABLE: pod.HUB_FILE,
        pod.MODEL_VARIABLE: pod.MODEL_FOLDER,
        pod.WORK_VARIABLE: pod.WORK_FOLDER,
    }
    return {
        "name": pod.SERVE_COMMAND,
        "image": server.pods.image,
        "imagePullPolicy": server.pods.image_pull_policy,
        "args": [pod.SERVE_COMMAND],
        "env": container_environment(server.pods, variables),
        "ports": [{"name": "http", "containerPort": pod.SERVING_PORT}],
        "startupProbe": {**_probe(), "failureThreshold": START_TRIES},
        "readinessProbe": _probe(),
        "livenessProbe": {**_probe(), "failureThreshold": 6},
        "resources": {"requests": dict(server.requests), "limits": dict(server.limits)},
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": volume, "mountPath": path, **({"readOnly": True} if read_only else {})}
            for volume, (path, read_only) in mounts.items()
        ],
    }


def _probe() -> Object:
    """Return a new object each time: YAML writes one that is used again as an alias."""
    return {
        "httpGet": {"path": pod.HEALTH_PATH, "port": "http"},
        "periodSeconds": PROBE_SECONDS,
        "timeoutSeconds": PROBE_SECONDS,
    }
