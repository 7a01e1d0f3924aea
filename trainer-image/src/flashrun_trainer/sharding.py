"""Sharding (FSDP2) of a base model that one GPU cannot hold.

Each process keeps a part of each layer, and a layer is gathered from all processes when it
computes. Only the base model is sharded. It is frozen, so its shards are never reduced, optimized
or saved. The adapter is small: every process has all of it, its gradients are averaged as without
sharding, and checkpoints have the same files.
"""

import inspect
import logging
from collections.abc import Callable
from typing import Any

from flashrun_trainer.pod.distributed import ProcessGroup

log = logging.getLogger(__name__)


def load_sharded(
    load: Callable[[], Any], process_group: ProcessGroup, processes_per_pod: int
) -> Any:
    """Return the model of ``load`` with its layers sharded; the embeddings stay whole.

    Call this before the adapter is added, because what is added later stays whole. The processes of
    a pod load one after the other: its main memory cannot hold several whole models.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh

    if not is_supported():
        log.warning(
            "this PyTorch cannot shard a model (that needs 2.7): every process keeps all of it"
        )
        return load()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (process_group.world_size,))
    model = None
    for turn in range(processes_per_pod):
        if process_group.local_rank == turn:
            model = load()
            _shard(model, mesh)
        process_group.barrier()
    log.info("the layers of the model are sharded over %d processes", process_group.world_size)
    return model


def is_supported() -> bool:
    """Return whether FSDP2 can ignore weights and run on CPUs: both since PyTorch 2.7."""
    from torch.distributed.fsdp import fully_shard

    return "ignored_params" in inspect.signature(fully_shard).parameters


def _shard(model: Any, mesh: Any) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    layer_types = set(model._no_split_modules or ())
    for layer in [module for module in model.modules() if type(module).__name__ in layer_types]:
        fully_shard(layer, mesh=mesh)
    # The module that calls the layers must be the root: a layer that is its own root stays gathered
    # after its forward pass, and the next layer is not prefetched while it computes.
    whole = {weight for weight in model.parameters() if not isinstance(weight, DTensor)}
    fully_shard(model.base_model, mesh=mesh, ignored_params=whole)
    # With this flag, ``generate`` continues until the longest completion of all processes has
    # ended: a layer can only be gathered when every process takes part.
    model._is_fsdp_managed_module = True


def exclude_shards_from_ddp(model: Any) -> None:
    """Make DistributedDataParallel average the gradients of the adapter only."""
    from accelerate import accelerator
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    shards = [name for name, weight in model.named_parameters() if isinstance(weight, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, shards)
    # On GPUs accelerate refuses DistributedDataParallel for a model with DTensor weights. It does
    # not know that they are ignored.
    accelerator.model_has_dtensor = lambda _: False
