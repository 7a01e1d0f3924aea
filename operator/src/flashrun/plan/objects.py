"""The Kubernetes objects of one run: the ConfigMap with the resolved spec, and the Job.

A run on several nodes has an Indexed Job with one pod per node, and a headless Service that gives
the leading pod a DNS name.

Every object is owned by its FlashRun, so that deletion works without the operator. Users cannot set
image, command, volumes or service account of a pod: the platform sets them.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from flashrun.api import exits, names, pod
from flashrun.api.platform import Platform, Pool, TrainerSettings
from flashrun.api.records import ResolvedRun, Scale
from flashrun.api.resource import FlashRun
from flashrun.plan.types import Object

_USER: Final = 1000


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


def spec_config_map(run: FlashRun, number: int, resolved: ResolvedRun) -> Object:
    """Return the immutable ConfigMap that the trainers of Job ``number`` read their spec from."""
    job = names.job_name(run.name, number)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owned_metadata(run, names.spec_config_map_name(job)),
        "immutable": True,
        "data": {names.SPEC_KEY: resolved.model_dump_json(indent=1)},
    }


def peers_service(run: FlashRun, number: int) -> Object:
    """Return the headless Service that gives each pod of Job ``number`` a DNS name.

    Pods that are not ready have names too, because they meet before they are ready.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owned_metadata(run, names.peers_service_name(names.job_name(run.name, number))),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.RUN_UID_LABEL: run.uid, names.JOB_NUMBER_LABEL: str(number)},
        },
    }


def trainer_job(run: FlashRun, placement: JobPlacement, platform: Platform, image: str) -> Object:
    """Return the Job that trains ``run``; the Job controller retries its pods."""
    trainer = platform.trainer
    meta = owned_metadata(run, names.job_name(run.name, placement.number))
    meta["labels"] |= {names.JOB_NUMBER_LABEL: str(placement.number)}
    if trainer.queue:
        meta["labels"] |= {"kueue.x-k8s.io/queue-name": trainer.queue}
    meta["annotations"] = {names.POOL_ANNOTATION: placement.pool.name}
    if placement.scale.sharded:
        meta["annotations"] |= {names.SHARDED_ANNOTATION: "true"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            **_retry_fields(placement.scale.nodes, trainer.retries),
            "activeDeadlineSeconds": trainer.wall_clock_seconds,
            "podReplacementPolicy": "Failed",  # a pod is replaced only after it has ended
            "podFailurePolicy": {"rules": _pod_failure_rules()},
            "template": {
                "metadata": {
                    "labels": {**trainer.labels, **meta["labels"]},
                    "annotations": dict(trainer.annotations),
                },
                "spec": _pod_spec(run, placement, platform, image),
            },
        },
    }


def job_number(job: Object) -> int:
    """Return which Job of its run a Job is, counted from 0."""
    return int(job["metadata"]["labels"].get(names.JOB_NUMBER_LABEL, 0))


def job_scale(job: Object) -> Scale:
    """Return how many pods and GPUs a Job has."""
    containers = job["spec"]["template"]["spec"]["containers"]
    container = next(item for item in containers if item["name"] == pod.TRAINER_CONTAINER)
    limits = container.get("resources", {}).get("limits", {})
    return Scale(
        nodes=job["spec"].get("completions") or 1,
        gpus=next((int(count) for name, count in limits.items() if "/" in name), 1),
        sharded=names.SHARDED_ANNOTATION in (job["metadata"].get("annotations") or {}),
    )


def job_retries(job: Object) -> int:
    """Return how many counted retries a Job has."""
    spec = job["spec"]
    return int(spec.get("backoffLimitPerIndex", spec.get("backoffLimit", 0)))


def _retry_fields(nodes: int, retries: int) -> Object:
    """Return the fields of a Job that set its number of pods and of retries.

    When one pod of an attempt fails, all of them end: ``backoffLimit`` would count one failed
    attempt up to ``nodes`` times. ``backoffLimitPerIndex`` counts it once per pod. The Job fails
    when one index has used up its retries, and succeeds when the leader does.
    """
    if nodes == 1:
        return {"backoffLimit": retries}
    return {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimitPerIndex": retries,
        "maxFailedIndexes": 0,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }


def _pod_failure_rules() -> list[Object]:
    """Return the rules in their order: a disruption is ignored, whatever the exit code is."""
    return [
        {
            "action": "Ignore",
            "onPodConditions": [{"type": pod.DISRUPTED_CONDITION, "status": "True"}],
        },
        {
            "action": "Ignore",
            "onExitCodes": {"operator": "In", "values": list(exits.IGNORED_CODES)},
        },
        {
            "action": "FailJob",
            "onExitCodes": {"operator": "In", "values": list(exits.FAILING_CODES)},
        },
    ]


def _pod_spec(run: FlashRun, placement: JobPlacement, platform: Platform, image: str) -> Object:
    trainer, pool = platform.trainer, placement.pool
    name = names.job_name(run.name, placement.number)
    several = placement.scale.nodes > 1
    spec: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": trainer.grace_seconds,
        "dnsPolicy": trainer.dns_policy,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [
            _init_container(pod.MODEL_CONTAINER, trainer, image),
            _init_container(pod.PACKAGES_CONTAINER, trainer, image),
        ],
        "containers": [_trainer_container(run, trainer, placement, image)],
        "volumes": _volumes(run, name, trainer),
    }
    optional = {
        "nodeSelector": pool.node_selector,
        "tolerations": [dict(toleration) for toleration in pool.tolerations],
        "runtimeClassName": pool.runtime_class,
        "priorityClassName": trainer.priority_class,
        "imagePullSecrets": [{"name": name} for name in trainer.pull_secrets],
        "affinity": _avoid_nodes(placement.avoid_nodes),
        "subdomain": names.peers_service_name(name) if several else "",
    }
    return spec | {key: value for key, value in optional.items() if value}


def _avoid_nodes(nodes: tuple[str, ...]) -> Object:
    if not nodes:
        return {}
    expression = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": list(nodes)}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _init_container(name: str, trainer: TrainerSettings, image: str) -> Object:
    """Return a container that prepares a folder; it gets no GPU and none of the run's secrets."""
    return {
        **_container(name, trainer, image),
        "env": [
            *_environment(trainer),
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"},
        ],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"memory": "4Gi"},
        },
    }


def _trainer_container(
    run: FlashRun, trainer: TrainerSettings, placement: JobPlacement, image: str
) -> Object:
    pool, gpus = placement.pool, placement.scale.gpus
    container = _container(pod.TRAINER_CONTAINER, trainer, image, argument=pod.TRAIN_COMMAND)
    # Later entries win: nothing that a user sets can replace what the platform sets.
    user = [{"name": name, "value": value} for name, value in sorted(run.spec.worker_env.items())]
    container["env"] = [*user, *_environment(trainer)]
    if placement.scale.nodes > 1:
        leader = names.leader_host(names.job_name(run.name, placement.number))
        container["env"].append({"name": pod.LEADER_VARIABLE, "value": leader})
    container["envFrom"] = [{"secretRef": {"name": names.secrets_name(run.name)}}]
    container["resources"] = {
        "requests": {
            "cpu": _multiply(pool.cpu, gpus),
            "memory": _multiply(pool.memory, gpus),
            pool.resource: str(gpus),
        },
        "limits": {"memory": _multiply(pool.memory, gpus), pool.resource: str(gpus)},
    }
    return container


def _container(
    name: str, trainer: TrainerSettings, image: str, argument: str | None = None
) -> Object:
    mounts = {
        "spec": (pod.SPEC_FOLDER, True),
        "storage": (pod.STORAGE_FOLDER, True),
        "model": (pod.MODEL_FOLDER, False),
        "packages": (pod.PACKAGES_FOLDER, False),
        "work": (pod.WORK_FOLDER, False),
        "tmp": ("/tmp", False),
        "shm": ("/dev/shm", False),
    }
    if trainer.ca_bundle_config_map:
        mounts["ca"] = (pod.CA_FOLDER, True)
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": trainer.image_pull_policy,
        "args": [argument or name],
        # Never FallbackToLogsOnError: it would copy log lines into the pod's status.
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": volume, "mountPath": path, **({"readOnly": True} if read_only else {})}
            for volume, (path, read_only) in mounts.items()
        ],
    }


def _environment(trainer: TrainerSettings) -> list[Object]:
    ca_names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
    values: dict[str, str] = {
        **trainer.environment,
        **{name.upper(): value for name, value in trainer.proxy.items()},
        **(dict.fromkeys(ca_names, pod.CA_FILE) if trainer.ca_bundle_config_map else {}),
        "HOME": "/tmp",
        pod.SPEC_VARIABLE: pod.SPEC_FILE,
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
        *({"name": name, "value": value} for name, value in values.items()),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in fields.items()
        ),
    ]


def _volumes(run: FlashRun, job: str, trainer: TrainerSettings) -> list[Object]:
    cache = trainer.model_cache_claim
    volumes: list[dict[str, Any]] = [
        {"name": "spec", "configMap": {"name": names.spec_config_map_name(job)}},
        {"name": "storage", "secret": {"secretName": names.storage_secret_name(run.name)}},
        {"name": "model"}
        | ({"persistentVolumeClaim": {"claimName": cache}} if cache else {"emptyDir": {}}),
        {"name": "packages", "emptyDir": {}},
        {"name": "work", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": trainer.shared_memory}},
    ]
    if trainer.ca_bundle_config_map:
        volumes.append({"name": "ca", "configMap": {"name": trainer.ca_bundle_config_map}})
    return volumes


def _multiply(quantity: str, count: int) -> str:
    """Multiply a Kubernetes quantity, such as 500m or 16Gi, by a count."""
    number = quantity.rstrip("mkKMGTi")
    unit = quantity[len(number) :]
    product = float(number) * count
    return f"{product:g}{unit}"
