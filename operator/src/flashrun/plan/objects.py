"""The Kubernetes objects of one run: the ConfigMap with the resolved spec, and the Job.

Pure builders. Every object is owned by the FlashRun, so deletion works without the operator; users
have no pass-through into a pod: image, command, volumes and service account are the platform's.
"""

from dataclasses import dataclass
from typing import Any, Final

from flashrun.plan.world import Object
from flashrun.spec import names, outcome
from flashrun.spec.platform import Platform, Pool, TrainerSettings
from flashrun.spec.records import ResolvedRun
from flashrun.spec.run import FlashRun

SPEC_FILE: Final = "/etc/flashrun/spec/spec.json"
STORAGE_FILE: Final = "/var/run/flashrun/storage/access.json"
ACCESS_KEY: Final = "access.json"
MODEL_FOLDER: Final = "/flashrun/model"
PACKAGES_FOLDER: Final = "/flashrun/packages"
WORK_FOLDER: Final = "/flashrun/work"
CA_FILE: Final = "/etc/flashrun/ca/ca.crt"
TRAINER_CONTAINER: Final = "trainer"
_USER: Final = 1000

RENEW_ANNOTATION: Final = f"{names.GROUP}/access-expires"
POOL_ANNOTATION: Final = f"{names.GROUP}/pool"
NUMBER_LABEL: Final = f"{names.GROUP}/job"


@dataclass(frozen=True)
class Placement:
    """Where the run's Job ``number`` goes."""

    number: int
    pool: Pool
    avoid_nodes: tuple[str, ...] = ()


def owner_reference(run: FlashRun) -> Object:
    """Return the reference that makes an object go away with its run."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": run.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def metadata(run: FlashRun, name: str) -> Object:
    """Return the metadata of an object that belongs to ``run``."""
    return {
        "name": name,
        "namespace": run.namespace,
        "labels": names.run_labels(run.name, run.uid),
        "ownerReferences": [owner_reference(run)],
    }


def spec_config_map(run: FlashRun, resolved: ResolvedRun) -> Object:
    """Return the immutable ConfigMap that the trainer reads its spec from."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(run, names.spec_config_map_name(run.name)),
        "immutable": True,
        "data": {"spec.json": resolved.model_dump_json(indent=1)},
    }


def job(run: FlashRun, placement: Placement, platform: Platform, image: str, gpus: int) -> Object:
    """Return the Job that trains ``run``; retries inside it are the Job controller's."""
    trainer = platform.trainer
    meta = metadata(run, names.job_name(run.name, placement.number))
    meta["labels"] |= {NUMBER_LABEL: str(placement.number)}
    if trainer.queue:
        meta["labels"] |= {"kueue.x-k8s.io/queue-name": trainer.queue}
    meta["annotations"] = {POOL_ANNOTATION: placement.pool.name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            "backoffLimit": trainer.retries,
            "activeDeadlineSeconds": trainer.wall_clock_seconds,
            "podReplacementPolicy": "Failed",  # never two pods of one run at a time
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": {
                "metadata": {
                    "labels": {**trainer.labels, **meta["labels"]},
                    "annotations": dict(trainer.annotations),
                },
                "spec": _pod_spec(run, placement, platform, image, gpus),
            },
        },
    }


def _failure_rules() -> list[Object]:
    """Order matters: a disruption is nobody's fault, whatever code the container left with."""
    return [
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {
            "action": "Ignore",
            "onExitCodes": {"operator": "In", "values": list(outcome.IGNORED_CODES)},
        },
        {
            "action": "FailJob",
            "onExitCodes": {"operator": "In", "values": list(outcome.FAILING_CODES)},
        },
    ]


def _pod_spec(
    run: FlashRun, placement: Placement, platform: Platform, image: str, gpus: int
) -> Object:
    trainer, pool = platform.trainer, placement.pool
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
            _init_container("model", trainer, image),
            _init_container("packages", trainer, image),
        ],
        "containers": [_trainer_container(run, trainer, pool, image, gpus)],
        "volumes": _volumes(run, trainer),
    }
    optional = {
        "nodeSelector": pool.node_selector,
        "tolerations": [dict(toleration) for toleration in pool.tolerations],
        "runtimeClassName": pool.runtime_class,
        "priorityClassName": trainer.priority_class,
        "imagePullSecrets": [{"name": name} for name in trainer.pull_secrets],
        "affinity": _away_from(placement.avoid_nodes),
    }
    return spec | {key: value for key, value in optional.items() if value}


def _away_from(nodes: tuple[str, ...]) -> Object:
    if not nodes:
        return {}
    expression = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": list(nodes)}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _init_container(name: str, trainer: TrainerSettings, image: str) -> Object:
    """Return a container that prepares one folder; it sees neither GPU nor user secrets."""
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
    run: FlashRun, trainer: TrainerSettings, pool: Pool, image: str, gpus: int
) -> Object:
    container = _container(TRAINER_CONTAINER, trainer, image, argument="train")
    # Later entries win: nothing that a user sets can replace what the platform sets.
    user = [{"name": name, "value": value} for name, value in sorted(run.spec.worker_env.items())]
    container["env"] = [*user, *_environment(trainer)]
    container["envFrom"] = [{"secretRef": {"name": names.secrets_name(run.name)}}]
    container["resources"] = {
        "requests": {
            "cpu": _times(pool.cpu, gpus),
            "memory": _times(pool.memory, gpus),
            pool.resource: str(gpus),
        },
        "limits": {"memory": _times(pool.memory, gpus), pool.resource: str(gpus)},
    }
    return container


def _container(
    name: str, trainer: TrainerSettings, image: str, argument: str | None = None
) -> Object:
    mounts = {
        "spec": ("/etc/flashrun/spec", True),
        "storage": ("/var/run/flashrun/storage", True),
        "model": (MODEL_FOLDER, False),
        "packages": (PACKAGES_FOLDER, False),
        "work": (WORK_FOLDER, False),
        "tmp": ("/tmp", False),
        "shm": ("/dev/shm", False),
    }
    if trainer.ca_bundle_config_map:
        mounts["ca"] = ("/etc/flashrun/ca", True)
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
        **(dict.fromkeys(ca_names, CA_FILE) if trainer.ca_bundle_config_map else {}),
        "HOME": "/tmp",
        "FLASHRUN_SPEC": SPEC_FILE,
        "FLASHRUN_STORAGE": STORAGE_FILE,
        "FLASHRUN_MODEL": MODEL_FOLDER,
        "FLASHRUN_PACKAGES": PACKAGES_FOLDER,
        "FLASHRUN_WORK": WORK_FOLDER,
    }
    fields = {
        "FLASHRUN_POD": "metadata.name",
        "FLASHRUN_POD_UID": "metadata.uid",
        "FLASHRUN_NODE": "spec.nodeName",
    }
    return [
        *({"name": name, "value": value} for name, value in values.items()),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in fields.items()
        ),
    ]


def _volumes(run: FlashRun, trainer: TrainerSettings) -> list[Object]:
    cache = trainer.model_cache_claim
    volumes: list[dict[str, Any]] = [
        {"name": "spec", "configMap": {"name": names.spec_config_map_name(run.name)}},
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


def _times(quantity: str, count: int) -> str:
    """Multiply a Kubernetes quantity, such as 500m or 16Gi, by a count."""
    number = quantity.rstrip("mkKMGTi")
    unit = quantity[len(number) :]
    product = float(number) * count
    return f"{product:g}{unit}"
