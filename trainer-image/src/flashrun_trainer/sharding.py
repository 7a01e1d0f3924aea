"""A model that one GPU cannot hold: its weights are spread over all, and brought together by layer.

Only the base model is spread, with PyTorch's FSDP2. It is frozen, so nothing of it is ever reduced,
optimized or saved. The adapter is small: every process has all of it, its gradients are averaged as
without sharding, and checkpoints are the same files.
"""

import inspect
import logging
from collections.abc import Callable
from typing import Any

from flashrun_trainer.pod.distributed import Ranks

log = logging.getLogger(__name__)


def loaded(load: Callable[[], Any], ranks: Ranks, processes_a_pod: int) -> Any:
    """Return a model of which every layer is kept in part; the embeddings stay whole.

    Has to happen before the adapter is added: what comes later stays whole. The processes of a pod
    load one after the other, because its main memory is not there for as many whole models.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh

    if not possible():
        log.warning("this PyTorch cannot spread a model: every process keeps all of it")
        return load()
    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (ranks.world,))
    model = None
    for turn in range(processes_a_pod):
        if ranks.local == turn:
            model = load()
            _spread(model, mesh)
        ranks.wait()
    log.info("the layers of the model are spread over %d processes", ranks.world)
    return model


def possible() -> bool:
    """Say whether this FSDP2 leaves weights out, and works on CPUs: both since PyTorch 2.7."""
    from torch.distributed.fsdp import fully_shard

    return "ignored_params" in inspect.signature(fully_shard).parameters


def _spread(model: Any, mesh: Any) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    kinds = set(model._no_split_modules or ())
    for layer in [module for module in model.modules() if type(module).__name__ in kinds]:
        fully_shard(layer, mesh=mesh)
    # What calls the layers has to be known as what they are part of: a layer by itself is kept
    # whole after its forward pass, and the next one is not fetched while it computes.
    rest = {weight for weight in model.parameters() if not isinstance(weight, DTensor)}
    fully_shard(model.base_model, mesh=mesh, ignored_params=rest)
    # Lets ``generate`` go on until the longest answer of all processes has ended: a layer can only
    # be brought together when everybody takes part.
    model._is_fsdp_managed_module = True


def keep_apart(model: Any) -> None:
    """Let data parallelism take care of the adapter only."""
    from accelerate import accelerator
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    spread = [name for name, weight in model.named_parameters() if isinstance(weight, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, spread)
    # On GPUs accelerate refuses data parallelism for a model that has such weights at all; it does
    # not know that they can be left out.
    accelerator.model_has_dtensor = lambda _: False
