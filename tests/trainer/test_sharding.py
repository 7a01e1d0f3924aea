"""Sharding: a sharded model learns the same, and only its adapter is averaged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.pods import resolved

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


@pytest.fixture
def group_of_one() -> Iterator[None]:
    """A process group with this process only."""
    from torch import distributed

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def adapted(folder: Path, sharded: bool) -> Any:
    """The model with a trainable adapter, its layers sharded or not."""
    import torch
    from peft import LoraConfig, get_peft_model

    from flashrun_trainer import adapter_layers, model, row_layout, sharding, trl_arguments
    from flashrun_trainer.pod.distributed import ProcessGroup

    def load() -> Any:
        return model.load(folder)

    network = sharding.load_sharded(load, ProcessGroup(), 1) if sharded else load()
    row_layout.choose_layout(network, ProcessGroup())  # as SFT does, before there is an adapter
    torch.manual_seed(1)
    settings = trl_arguments.lora(resolved(), *adapter_layers.find_targets(network))
    joined = get_peft_model(network, LoraConfig(**settings, init_lora_weights=False))
    joined.gradient_checkpointing_enable()
    return joined.train()


def whole_layers(network: Any) -> list[str]:
    """The names of base weights in layers that are whole in this process."""
    from torch.distributed.tensor import DTensor

    return [
        name
        for name, weight in network.named_parameters()
        if ".layers." in name and "lora_" not in name and not isinstance(weight, DTensor)
    ]


@pytest.mark.sharding
@pytest.mark.usefixtures("group_of_one")
def test_a_sharded_model_learns_the_same_and_no_layer_stays_whole(architecture: tuple[str, Path]):
    import torch

    _, folder = architecture
    ids = torch.arange(3, 27).view(2, 12)
    found = {}
    for sharded in (False, True):
        network = adapted(folder, sharded)
        loss = network(input_ids=ids, labels=ids, use_cache=False).loss
        assert bool(whole_layers(network)) != sharded
        loss.backward()
        assert bool(whole_layers(network)) != sharded
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        found[sharded] = [loss.detach(), *(weight.grad for weight in weights)]
        answer = network.eval().generate(input_ids=ids, max_new_tokens=4, do_sample=False)
        found[sharded].append(answer)
        assert bool(whole_layers(network)) != sharded
    for alone, together in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(together, alone)


@pytest.mark.sharding
@pytest.mark.usefixtures("group_of_one")
def test_the_adapter_of_a_sharded_model_is_averaged_on_gpus(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    import torch
    from accelerate import Accelerator, accelerator

    from flashrun_trainer import sharding

    class OnCpu(torch.nn.parallel.DistributedDataParallel):
        """Accepts the arguments that accelerate passes on GPUs."""

        def __init__(self, module: Any, device_ids: Any, output_device: Any) -> None:
            super().__init__(module)

    # As with several GPUs; monkeypatch restores what exclude_shards_from_ddp changes.
    monkeypatch.setattr(Accelerator, "multi_device", True)
    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", OnCpu)
    monkeypatch.setattr(accelerator, "model_has_dtensor", accelerator.model_has_dtensor)
    network = adapted(tiny_model, sharded=True)
    sharding.exclude_shards_from_ddp(network)

    averaged = Accelerator(cpu=True).prepare_model(network)

    assert isinstance(averaged, OnCpu)
    names = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert {name for name in names if "lora_" not in name} == set()
    assert not names & averaged.parameters_to_ignore
    assert set(whole_layers(network)) == set()
