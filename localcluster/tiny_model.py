"""The model that the examples train: made in a pod of the trainer image, stored in the mirror."""

import json
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from localcluster import folders, lifecycle
from localcluster.chart import MODEL_REVISION, NAMESPACE, RELEASE
from localcluster.images import Images
from localcluster.lifecycle import DevCluster
from localcluster.steps import FatalError, StepRunner

JOB = "tiny-model"
SCRIPT = "mirror_model.py"


def mirror(local: DevCluster, built: Images, steps: StepRunner, ids: Sequence[str]) -> None:
    """Make the tiny model in a pod of the trainer image and commit it to the mirror as `ids`."""
    with steps.step(f"make the model {' and '.join(ids)} and put it into the mirror") as step:
        delete = ["delete", "job", JOB, "--namespace", NAMESPACE, "--ignore-not-found"]
        steps.run(lifecycle.kubectl(delete, steps))
        objects = {"apiVersion": "v1", "kind": "List", "items": _objects(local, built, ids)}
        apply = lifecycle.kubectl(["apply", "--namespace", NAMESPACE, "-f", "-"], steps)
        steps.run(apply, stdin=json.dumps(objects), what="kubectl apply")
        _wait_for_job(steps)
        log = steps.run(lifecycle.kubectl(["logs", f"job/{JOB}", "--namespace", NAMESPACE], steps))
        step.detail = log.strip().rpartition("\n")[2]


def _wait_for_job(steps: StepRunner) -> None:
    """Wait until the Job succeeds.

    Raises:
        FatalError: the Job fails or takes too long; with its last log line.
    """
    where = ["--namespace", NAMESPACE]
    end = time.monotonic() + 600
    while time.monotonic() < end:
        got = lifecycle.kubectl(["get", "job", JOB, *where, "-o", "json"], steps)
        status = json.loads(subprocess.check_output(got)).get("status", {})
        if status.get("succeeded"):
            return
        if status.get("failed"):
            break
        time.sleep(0.5)
    steps.run(lifecycle.kubectl(["describe", "pods", "-l", f"job-name={JOB}", *where], steps))
    log = steps.run(lifecycle.kubectl(["logs", f"job/{JOB}", *where, "--tail=50"], steps))
    last = log.strip().splitlines()[-1:] or ["its pod has no log"]
    raise FatalError(f"making the tiny model failed: {last[0]} (full log: {steps.log})")


def _objects(local: DevCluster, built: Images, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the ConfigMap with the two scripts, and the Job that runs them."""
    root = folders.repository()
    scripts = [root / "examples/tiny-model/make_tiny_model.py", root / "localcluster" / SCRIPT]
    plain = {
        "STORAGE_ENDPOINT": local.storage_endpoint,
        "STORAGE_BUCKET": "flashrun",
        "OMP_NUM_THREADS": "1",
        "HOME": "/tmp",
    }
    secret = {"STORAGE_ACCESS_KEY": "accessKey", "STORAGE_SECRET_KEY": "secretKey"}
    container = {
        "name": JOB,
        "image": built.trainer,
        "command": ["python3", f"/scripts/{SCRIPT}", MODEL_REVISION, *ids],
        "env": [{"name": name, "value": value} for name, value in plain.items()]
        + [{"name": name, "valueFrom": _from_secret(key)} for name, key in secret.items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "scripts", "mountPath": "/scripts"}],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "scripts", "configMap": {"name": JOB}}],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": JOB},
            "data": {script.name: script.read_text() for script in scripts},
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": JOB},
            "spec": {"backoffLimit": 0, "template": {"spec": pod}},
        },
    ]


def _from_secret(key: str) -> dict[str, Any]:
    return {"secretKeyRef": {"name": f"{RELEASE}-storage", "key": key}}
