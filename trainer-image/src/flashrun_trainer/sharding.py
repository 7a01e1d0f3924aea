"""A model that one GPU cannot hold: its weights are spread over all, and brought together by layer.

Only the base model is spread, with PyTorch's FSDP2. It is frozen, so nothing of it is ever reduced,
optimized or saved. The adapter is small: every process has all of it, its gradients are averaged as
without sharding, and checkpoints are the same files.
"""

import logging
from collections.abc import Callable
from typing import Any

from flashrun_trainer.ranks import Ranks

log = logging.getLogger(__name__)


def loaded(load: Callable[[], Any], ranks: Ranks, processes_a_pod: int) -> Any:
    """Return a model of which every layer is kept in part; the embeddings stay whole.

    Has to happen before the adapter is added: what comes later stays whole. The processes of a pod
    load one after the other, because its main memory is not there for as many whole models.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh

    if not _possible():
        log.warning("this PyTorch cannot spread a model over CPUs: every process keeps all of it")
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


def _possible() -> bool:
    """Say whether FSDP2 works here: on CPUs it does only since PyTorch 2.7."""
    import torch

    return torch.cuda.is_available() or hasattr(torch.cpu.Stream, "record_event")


def _spread(model: Any, mesh: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    layers = set(model._no_split_modules or ())
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh)
    # Lets ``generate`` go on until the longest answer of all processes has ended: a layer can only
    # be brought together when everybody takes part.
    model._is_fsdp_managed_module = True


def keep_apart(model: Any) -> None:
    """Let data parallelism take care of the adapter only."""
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    spread = [name for name, weight in model.named_parameters() if isinstance(weight, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, spread)
