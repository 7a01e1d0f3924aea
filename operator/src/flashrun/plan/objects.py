"""The Kubernetes objects of one run: the ConfigMap with the resolved spec, and the Job.

A run on several nodes has an Indexed Job with one pod per node, and a headless Service that gives
the leading pod a DNS name.

Every object is owned by its FlashRun, so that deletion works without the operator. Users cannot set
image, command, volumes or service account of a pod: the platform sets them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flashrun.api import exits, names, pod
from flashrun.api.platform import Platform, PodSettings, PodUser, Pool, TrainerSettings
from flashrun.api.quantities import multiply_quantity, parse_quantity
from flashrun.api.records import ResolvedRun, Scale
from flashrun.api.resource import FlashRun
from flashrun.plan import pins
from flashrun.plan.types import Object

INIT_MEMORY: Final = "4Gi"
"""Limit on the main memory of an init container, in every pool."""
_INIT_CPU: Final = "100m"


@dataclass(frozen=True)
class JobPlacement:
    """Where Job ``number`` of a run goes: its pool, its GPUs, and nodes to avoid."""

    number: int
    pool: Pool
    scale: Scale = field(default_factory=Scale)
    avoid_nodes: tuple[str, ...] = ()


def owner_reference(run: FlashRun) -> Object:
    """Return the reference by which Kubernetes deletes an object together with its run."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": run.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owned_metadata(run: FlashRun, name: str) -> Object:
    """Return the metadata of an object that belongs to ``run``."""
    return {
        "name": name,
        "namespace": run.namespace,
        "labels": names.run_labels(run.name, run.uid),
        "ownerReferences": [owner_reference(run)],
    }


def is_owned_by(metadata: Object, uid: str) -> bool:
    """Return whether an object names the object with this ``uid`` as an owner."""
    return any(owner["uid"] == uid for owner in metadata.get("ownerReferences") or [])


def spec_config_map(run: FlashRun, resolved: ResolvedRun) -> Object:
    """Return the immutable ConfigMap from which trainers read ``resolved``, named by its content.

    It is only written: what the operator does follows from spec and status, never from this object.
    """
    text = pins.spec_text(resolved)
    name = names.spec_config_map_name(run.name, run.uid, pins.digest_of(text))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owned_metadata(run, name),
        "immutable": True,
        "data": {names.SPEC_KEY: text},
    }


def holds_spec(config_map: Object, run: FlashRun, digest: str) -> bool:
    """Return whether a ConfigMap is as the operator wrote it: owned, immutable, of this digest."""
    data = config_map.get("data") or {}
    return (
        is_owned_by(config_map["metadata"], run.uid)
        and config_map.get("immutable") is True
        and data.keys() == {names.SPEC_KEY}
        and pins.digest_of(data[names.SPEC_KEY]) == digest
    )


def peers_service(run: FlashRun, number: int) -> Object:
    """Return the headless Service that gives each pod of Job ``number`` a DNS name.

    Pods that are not ready have names too, because they meet before they are ready.
    """
    job = names.job_name(run.name, run.uid, number)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owned_metadata(run, names.peers_service_name(job)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.RUN_UID_LABEL: run.uid, names.JOB_NUMBER_LABEL: str(number)},
        },
    }


def trainer_job(
    run: FlashRun,
    placement: JobPlacement,
    platform: Platform,
    resolved: ResolvedRun,
    limits: pins.JobLimits | None = None,
) -> Object:
    """Return the Job that trains ``run``; the Job controller retries its pods.

    ``limits`` are by default those that the status of the run has.
    """
    trainer, limits = platform.trainer, limits or pins.job_limits(run, platform)
    meta = owned_metadata(run, names.job_name(run.name, run.uid, placement.number))
    meta["labels"] |= {names.JOB_NUMBER_LABEL: str(placement.number)}
    if trainer.queue:
        meta["labels"] |= {names.QUEUE_LABEL: trainer.queue}
    # For people: the operator does not read them.
    meta["annotations"] = {names.POOL_ANNOTATION: placement.pool.name}
    if placement.scale.sharded:
        meta["annotations"] |= {names.SHARDED_ANNOTATION: "true"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            **({"suspend": True} if trainer.queue else {}),  # until Kueue lets it go on
            **_size_fields(placement.scale.nodes),
            **limit_fields(placement.scale.nodes, limits),
            "podReplacementPolicy": "Failed",  # a pod is replaced only after it has ended
            "podFailurePolicy": {"rules": _pod_failure_rules()},
            "template": {
                "metadata": {
                    "labels": {**trainer.labels, **meta["labels"]},
                    "annotations": {
                        **trainer.annotations,
                        "kubectl.kubernetes.io/default-container": pod.TRAINER_CONTAINER,
                    },
                },
                "spec": _pod_spec(run, placement, platform, resolved),
            },
        },
    }


def limit_fields(nodes: int, limits: pins.JobLimits) -> Object:
    """Return the fields of a Job that limit its time and its retries.

    When one pod of an attempt fails, all of them end: ``backoffLimit`` would count one failed
    attempt up to ``nodes`` times. ``backoffLimitPerIndex`` counts it once per pod.
    """
    retries = "backoffLimit" if nodes == 1 else "backoffLimitPerIndex"
    return {retries: limits.retries_left, "activeDeadlineSeconds": limits.deadline_seconds}


def _size_fields(nodes: int) -> Object:
    """Return the fields of a Job that set its number of pods.

    The Job fails when one index has used up its retries, and succeeds when the leader does.
    """
    if nodes == 1:
        return {}
    return {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "maxFailedIndexes": 0,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }


def _pod_failure_rules() -> list[Object]:
    """Return the rules in their order: a disruption is ignored, whatever the exit code is.

    Exit codes count of our own containers only: without a name, a rule would match those of
    containers that other programs add to the pod.
    """
    return [
        {
            "action": "Ignore",
            "onPodConditions": [{"type": pod.DISRUPTED_CONDITION, "status": "True"}],
        },
        *(
            {
                "action": action,
                "onExitCodes": {"containerName": name, "operator": "In", "values": list(codes)},
            }
            for action, codes in (
                ("Ignore", exits.IGNORED_CODES),
                ("FailJob", exits.FAILING_CODES),
            )
            for name in pod.CONTAINERS
        ),
    ]


def _pod_spec(
    run: FlashRun, placement: JobPlacement, platform: Platform, resolved: ResolvedRun
) -> Object:
    trainer, pool = platform.trainer, placement.pool
    name = names.job_name(run.name, run.uid, placement.number)
    config_map = spec_config_map(run, resolved)["metadata"]["name"]
    several = placement.scale.nodes > 1
    spec: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": trainer.grace_seconds,
        "dnsPolicy": trainer.dns_policy,
        "securityContext": pod_security(trainer.run_as_user),
        "initContainers": [
            _init_container(pod.MODEL_CONTAINER, trainer, placement, resolved),
            _init_container(pod.PACKAGES_CONTAINER, trainer, placement, resolved),
        ],
        "containers": [_trainer_container(run, trainer, placement, resolved)],
        "volumes": _volumes(run, config_map, trainer),
    }
    optional = {
        **pool_nodes(pool),
        "priorityClassName": trainer.priority_class,
        "imagePullSecrets": [{"name": name} for name in trainer.pull_secrets],
        "affinity": _avoid_nodes(placement.avoid_nodes),
        "subdomain": names.peers_service_name(name) if several else "",
    }
    return spec | {key: value for key, value in optional.items() if value}


def pool_nodes(pool: Pool) -> Object:
    """Return the fields of a pod that bring it to the nodes of ``pool``; some may be empty."""
    return {
        "nodeSelector": pool.node_selector,
        "tolerations": [dict(toleration) for toleration in pool.tolerations],
        "runtimeClassName": pool.runtime_class,
    }


def pod_security(user: PodUser) -> Object:
    """Return the security context of a pod, which the profile ``restricted`` admits.

    OpenShift refuses the number of a user that it has not chosen itself.
    """
    fields = ("runAsUser", "runAsGroup", "fsGroup")
    return {
        "runAsNonRoot": True,
        **({} if user == "cluster" else dict.fromkeys(fields, user)),
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Object:
    """Return the security context of every container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _avoid_nodes(nodes: tuple[str, ...]) -> Object:
    """Return the affinity that keeps a pod away from nodes of these names.

    The label ``kubernetes.io/hostname`` may be another one than the name of its node. A field takes
    one value only.
    """
    if not nodes:
        return {}
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in nodes]
    required = {"nodeSelectorTerms": [{"matchFields": fields}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _init_container(
    name: str, trainer: TrainerSettings, placement: JobPlacement, resolved: ResolvedRun
) -> Object:
    """Return a container that prepares a folder; it gets no GPU and none of the run's secrets."""
    return {
        **_container(name, trainer, resolved.image),
        "env": [
            *_environment(trainer, resolved),
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"},
            *(
                [{"name": pod.NETRC_VARIABLE, "value": pod.NETRC_FILE}]
                if trainer.pip_index_secret and name == pod.PACKAGES_CONTAINER
                else []
            ),
        ],
        "resources": _init_resources(placement),
    }


def _init_resources(placement: JobPlacement) -> Object:
    """Return what an init container gets: it may use as much as the trainer after it.

    A quota on limits, or on local disk, asks every container of a pod for them.
    """
    shared = _optional_resources(placement)
    requests = {"cpu": _INIT_CPU, "memory": "256Mi"}
    limit = shared["limits"].get("cpu")
    if limit is not None and parse_quantity(limit) < parse_quantity(_INIT_CPU):
        requests["cpu"] = limit
    return {
        "requests": {**requests, **shared["requests"]},
        "limits": {"memory": INIT_MEMORY, **shared["limits"]},
    }


def _optional_resources(placement: JobPlacement) -> Object:
    """Return the requests and limits of each container that only some platforms set."""
    pool, gpus = placement.pool, placement.scale.gpus
    requests, limits = {}, {}
    if pool.cpu_limit is not None:
        limits["cpu"] = multiply_quantity(pool.cpu_limit, gpus)
    if pool.ephemeral_storage is not None:
        disk = multiply_quantity(pool.ephemeral_storage, gpus)
        requests["ephemeral-storage"] = limits["ephemeral-storage"] = disk
    return {"requests": requests, "limits": limits}


def _trainer_container(
    run: FlashRun, trainer: TrainerSettings, placement: JobPlacement, resolved: ResolvedRun
) -> Object:
    pool, gpus = placement.pool, placement.scale.gpus
    container = _container(
        pod.TRAINER_CONTAINER, trainer, resolved.image, argument=pod.TRAIN_COMMAND
    )
    # Later entries win: nothing that a user sets can replace what the platform sets.
    user = [{"name": name, "value": value} for name, value in sorted(run.spec.worker_env.items())]
    container["env"] = [*user, *_environment(trainer, resolved)]
    if placement.scale.nodes > 1:
        leader = names.leader_host(names.job_name(run.name, run.uid, placement.number))
        container["env"].append({"name": pod.LEADER_VARIABLE, "value": leader})
    if run.spec.names_secrets:
        secrets = names.secrets_name(run.name, run.uid)
        container["envFrom"] = [{"secretRef": {"name": secrets}}]
    memory = multiply_quantity(pool.memory, gpus)
    optional = _optional_resources(placement)
    container["resources"] = {
        "requests": {
            "cpu": multiply_quantity(pool.cpu, gpus),
            "memory": memory,
            pool.resource: str(gpus),
            **optional["requests"],
        },
        "limits": {"memory": memory, pool.resource: str(gpus), **optional["limits"]},
    }
    return container


def _container(
    name: str, trainer: TrainerSettings, image: str, argument: str | None = None
) -> Object:
    mounts = {
        "spec": (pod.SPEC_FOLDER, True),
        "storage": (pod.STORAGE_FOLDER, True),
        # Pods may share it, and what one of them writes is loaded by the others.
        "model": (pod.MODEL_FOLDER, name != pod.MODEL_CONTAINER),
        "packages": (pod.PACKAGES_FOLDER, False),
        "work": (pod.WORK_FOLDER, False),
        "tmp": ("/tmp", False),
        pod.SHARED_MEMORY_VOLUME: ("/dev/shm", False),
    }
    if trainer.ca_bundle_config_map:
        mounts["ca"] = (pod.CA_FOLDER, True)
    if trainer.pip_index_secret and name == pod.PACKAGES_CONTAINER:
        mounts["index"] = (pod.INDEX_FOLDER, True)
    if trainer.hub_secret and name == pod.MODEL_CONTAINER:
        mounts["hub"] = (pod.HUB_FOLDER, True)
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": trainer.image_pull_policy,
        "args": [argument or name],
        # Never FallbackToLogsOnError: it would copy log lines into the pod's status.
        "terminationMessagePolicy": "File",
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": volume, "mountPath": path, **({"readOnly": True} if read_only else {})}
            for volume, (path, read_only) in mounts.items()
        ],
    }


def container_environment(
    settings: PodSettings, own: Mapping[str, str], further: Mapping[str, str] | None = None
) -> list[Object]:
    """Return the variables that a container gets from the platform, and its ``own``.

    A proxy that asks for credentials is named by a Secret.
    """
    ca_names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
    values: dict[str, str] = {
        **pod.NO_TELEMETRY,
        **(further or {}),
        **{name.upper(): value for name, value in settings.proxy.items()},
        **(dict.fromkeys(ca_names, pod.CA_FILE) if settings.ca_bundle_config_map else {}),
        "HOME": "/tmp",
        **own,
    }
    hidden = settings.proxies_with_credentials
    return [
        *({"name": name, "value": value} for name, value in values.items() if name not in hidden),
        *(
            {
                "name": name,
                "valueFrom": {"secretKeyRef": {"name": names.UPSTREAMS_SECRET, "key": name}},
            }
            for name in hidden
        ),
    ]


def _environment(trainer: TrainerSettings, resolved: ResolvedRun) -> list[Object]:
    own = {
        pod.SPEC_VARIABLE: pod.SPEC_FILE,
        pod.SPEC_DIGEST_VARIABLE: pins.digest_of(pins.spec_text(resolved)),
        pod.STORAGE_VARIABLE: pod.STORAGE_FILE,
        pod.MODEL_VARIABLE: pod.MODEL_FOLDER,
        pod.PACKAGES_VARIABLE: pod.PACKAGES_FOLDER,
        pod.WORK_VARIABLE: pod.WORK_FOLDER,
    }
    fields = {
        pod.POD_VARIABLE: "metadata.name",
        pod.POD_UID_VARIABLE: "metadata.uid",
        pod.NODE_VARIABLE: "spec.nodeName",
    }
    return [
        *container_environment(trainer, own, trainer.environment),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in fields.items()
        ),
    ]


def _volumes(run: FlashRun, config_map: str, trainer: TrainerSettings) -> list[Object]:
    cache, storage = trainer.model_cache_claim, names.storage_secret_name(run.name, run.uid)
    volumes: list[dict[str, Any]] = [
        {"name": "spec", "configMap": {"name": config_map}},
        {"name": "storage", "secret": {"secretName": storage}},
        {"name": "model"}
        | ({"persistentVolumeClaim": {"claimName": cache}} if cache else {"emptyDir": {}}),
        {"name": "packages", "emptyDir": {}},
        {"name": "work", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {
            "name": pod.SHARED_MEMORY_VOLUME,
            "emptyDir": {"medium": "Memory", "sizeLimit": trainer.shared_memory},
        },
    ]
    for volume, key, wanted in (
        ("index", names.NETRC_KEY, trainer.pip_index_secret),
        ("hub", names.HUB_KEY, trainer.hub_secret),
    ):
        if wanted:
            items = [{"key": key, "path": key}]
            secret = {"secretName": names.UPSTREAMS_SECRET, "items": items}
            volumes.append({"name": volume, "secret": secret})
    if trainer.ca_bundle_config_map:
        volumes.append({"name": "ca", "configMap": {"name": trainer.ca_bundle_config_map}})
    return volumes
