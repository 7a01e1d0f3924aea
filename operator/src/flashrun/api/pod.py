"""A trainer pod as operator, trainer and command line know it: containers, files and variables."""

from collections.abc import Mapping
from typing import Any, Final

from flashrun.api import names

MODEL_CONTAINER: Final = "model"
"""Init container that downloads the base model; its command has the same name."""
PACKAGES_CONTAINER: Final = "packages"
"""Init container that installs the environment; its command has the same name."""
TRAINER_CONTAINER: Final = "trainer"
CONTAINERS: Final = (MODEL_CONTAINER, PACKAGES_CONTAINER, TRAINER_CONTAINER)
"""All containers, in the order in which they run."""
LAST_WORDS: Final = "attempt %d ends with code %d"
"""Begin of the last line in a trainer's log, unless it is killed; number and exit code follow."""
TRAIN_COMMAND: Final = "train"
"""Command of the container ``trainer``."""
RANK_COMMAND: Final = "rank"
"""Command of each process that ``train`` starts by itself."""
SERVE_COMMAND: Final = "serve"
"""Command, and name, of the container of a server of adapters."""
SERVING_PORT: Final = 8000
"""Port of its OpenAI endpoint."""
HEALTH_PATH: Final = "/health"
"""Where it answers 200 once it can serve, as vLLM does."""

SPEC_FOLDER: Final = "/etc/flashrun/spec"
SPEC_FILE: Final = f"{SPEC_FOLDER}/{names.SPEC_KEY}"
SERVED_FILE: Final = f"{SPEC_FOLDER}/{names.SERVED_KEY}"
STORAGE_FOLDER: Final = "/var/run/flashrun/storage"
STORAGE_FILE: Final = f"{STORAGE_FOLDER}/{names.ACCESS_KEY}"
SHARED_MEMORY_VOLUME: Final = "shm"
"""Volume in main memory that the processes of a pod share."""
INDEX_FOLDER: Final = "/var/run/flashrun/index"
NETRC_FILE: Final = f"{INDEX_FOLDER}/{names.NETRC_KEY}"
"""Credentials of the package index; only the container ``packages`` has them."""
HUB_FOLDER: Final = "/var/run/flashrun/hub"
HUB_FILE: Final = f"{HUB_FOLDER}/{names.HUB_KEY}"
"""Credentials of the model hub; only the container ``model`` has them."""
CA_FOLDER: Final = "/etc/flashrun/ca"
CA_FILE: Final = f"{CA_FOLDER}/ca.crt"
MODEL_FOLDER: Final = "/flashrun/model"
PACKAGES_FOLDER: Final = "/flashrun/packages"
WORK_FOLDER: Final = "/flashrun/work"
TERMINATION_FILE: Final = "/dev/termination-log"
"""Where Kubernetes reads a container's termination message from."""

SPEC_VARIABLE: Final = "FLASHRUN_SPEC"
SERVED_VARIABLE: Final = "FLASHRUN_SERVED"
ENGINE_VARIABLE: Final = "FLASHRUN_ENGINE"
GPUS_VARIABLE: Final = "FLASHRUN_GPUS"
"""What a server of adapters answers with."""
SPEC_DIGEST_VARIABLE: Final = "FLASHRUN_SPEC_DIGEST"
"""SHA-256 of the resolved spec that the pod was made for; a pod with another one stops."""
STORAGE_VARIABLE: Final = "FLASHRUN_STORAGE"
MODEL_VARIABLE: Final = "FLASHRUN_MODEL"
PACKAGES_VARIABLE: Final = "FLASHRUN_PACKAGES"
WORK_VARIABLE: Final = "FLASHRUN_WORK"
TERMINATION_VARIABLE: Final = "FLASHRUN_TERMINATION"
NETRC_VARIABLE: Final = "NETRC"
"""Where pip looks for credentials."""
HUB_VARIABLE: Final = "FLASHRUN_HUB"
POD_VARIABLE: Final = "FLASHRUN_POD"
POD_UID_VARIABLE: Final = "FLASHRUN_POD_UID"
NODE_VARIABLE: Final = "FLASHRUN_NODE"
LEADER_VARIABLE: Final = "FLASHRUN_LEADER"
"""Host of the leading pod; set only in a run on several nodes."""
LEADER_PORT_VARIABLE: Final = "FLASHRUN_LEADER_PORT"
ATTEMPT_VARIABLE: Final = "FLASHRUN_ATTEMPT"
"""Number of the claimed attempt; set in the processes that ``train`` starts."""
INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
"""Position of the pod in its Indexed Job; Kubernetes sets it."""

NO_TELEMETRY: Final = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "WANDB_ERROR_REPORTING": "false",
}
"""Without these, TRL and vLLM report the architecture, versions and the GPU to their developers.

The library of Weights & Biases would send its own errors, with tracebacks, to the server that gets
the metrics.
"""

IMAGE_PYTHON: Final = "3.12"
"""Python of the trainer image, where the platform has not chosen another base image."""
IMAGE_VARIABLES: Final = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "HOME": "/tmp",
    "USER": "flashrun",
}
"""What the trainer image sets; the same is in its Dockerfile."""

DISRUPTED_CONDITION: Final = "DisruptionTarget"
"""Type of the pod condition that says that the cluster, not the trainer, ended the pod."""


ENDED_PHASES: Final = frozenset({"Succeeded", "Failed"})
"""Phases of a pod whose containers do not run any more."""


def container_statuses(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the statuses of a pod's containers, those of the init containers first."""
    status = pod.get("status") or {}
    return [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
