"""The container of a server of adapters: fetches the base model, then serves."""

import logging
import os
import shutil
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from flashrun.api import adapter_use, pod
from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.served import ServedList, ServingEngine
from flashrun_trainer.init import model_download
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.trainer_errors import TrainerError
from flashrun_trainer.serving.adapter_cache import AdapterCache

log = logging.getLogger(__name__)

_ADAPTERS_AT_ONCE: Final = 8
"""Adapters that vLLM keeps beside the weights, and serves in one batch."""


def run(mounts: PodMounts) -> int:
    """Serve until the pod is stopped."""
    served = read_list(Path(os.environ.get(pod.SERVED_VARIABLE, pod.SERVED_FILE)))
    spec = mounts.run()
    uses_vllm = os.environ.get(pod.ENGINE_VARIABLE) == ServingEngine.VLLM
    if uses_vllm and not shutil.which("vllm"):  # a large model would be downloaded in vain
        raise TrainerError(
            Exit.CONFIG,
            Reason.SPEC_INVALID,
            "this image has no vLLM",
            "build the trainer image with --build-arg VLLM=yes, or use flash serve --engine "
            "transformers",
        )
    model_download.run(mounts)
    folder = mounts.model_folder(spec)
    if uses_vllm:
        gpus = int(os.environ.get(pod.GPUS_VARIABLE, "1"))
        command = vllm_command(folder, spec.model.id, served, gpus)
        # The resolver is used only if vLLM may load adapters while it runs.
        variables = {**os.environ, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
        os.execvpe(command[0], command, variables)
    from flashrun_trainer.serving.endpoint import Endpoint, EndpointServer

    cache = AdapterCache(served, mounts.store(), mounts.work / "adapters")
    with EndpointServer(Endpoint(folder, spec, cache)) as server:
        log.info("serving %s and %d adapters", spec.model.id, len(served.adapters))
        server.serve_forever()
    return 0


def read_list(path: Path) -> ServedList:
    """Return the list of adapters; raises ``TrainerError`` when it cannot be read."""
    try:
        return ServedList.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise TrainerError(
            Exit.CONFIG,
            Reason.SPEC_INVALID,
            f"the list of adapters {path} cannot be read: {str(error).splitlines()[0]}",
            "type flash serve again, with a program and an image of the same release",
        ) from None


def vllm_command(folder: Path, base: str, served: ServedList, gpus: int) -> list[str]:
    """Return the command of vLLM's own server, which splits the model over the GPUs."""
    rank = adapter_use.vllm_rank(served.rank) or served.rank
    words = {
        "--served-model-name": base,
        "--port": pod.SERVING_PORT,
        "--max-lora-rank": rank,
        "--max-loras": min(_ADAPTERS_AT_ONCE, max(1, len(served.adapters))),
        "--tensor-parallel-size": gpus,
    }
    options = [str(word) for pair in words.items() for word in pair]
    return ["vllm", "serve", str(folder), "--enable-lora", *options]
