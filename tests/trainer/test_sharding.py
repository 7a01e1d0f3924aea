"""Sharding: a sharded model learns the same, and only its adapter is averaged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.pods import resolved

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


@pytest.fixture
def group_of_one() -> Iterator[None]:
    """What processes that share a model are, of which this one is the only one."""
    from torch import distributed

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def adapted(folder: Path, spread: bool) -> Any:
    """The model with an adapter that learns, its layers spread or not."""
    import torch
    from peft import LoraConfig, get_peft_model

    from flashrun_trainer import model, sharding, trl_arguments
    from flashrun_trainer.pod.distributed import ProcessGroup

    def load() -> Any:
        return model.load(folder)

    network = sharding.load_sharded(load, ProcessGroup(), 1) if spread else load()
    torch.manual_seed(1)
    settings = trl_arguments.lora(resolved(), model.adapter_targets(network))
    joined = get_peft_model(network, LoraConfig(**settings, init_lora_weights=False))
    joined.gradient_checkpointing_enable()
    return joined.train()


def whole_layers(network: Any) -> list[str]:
    """The weights of layers, without the adapter, that this process has all of."""
    from torch.distributed.tensor import DTensor

    return [
        name
        for name, weight in network.named_parameters()
        if ".layers." in name and "lora_" not in name and not isinstance(weight, DTensor)
    ]


@pytest.fixture
def able() -> None:
    from flashrun_trainer import sharding

    if not sharding.is_supported():
        pytest.skip("PyTorch before 2.7 cannot shard a model on CPUs")


@pytest.mark.sharding
@pytest.mark.usefixtures("able", "group_of_one")
def test_a_spread_model_learns_the_same_and_no_layer_stays_whole(architecture: tuple[str, Path]):
    import torch

    _, folder = architecture
    ids = torch.arange(3, 27).view(2, 12)
    found = {}
    for spread in (False, True):
        network = adapted(folder, spread)
        loss = network(input_ids=ids, labels=ids, use_cache=False).loss
        assert bool(whole_layers(network)) != spread
        loss.backward()
        assert bool(whole_layers(network)) != spread
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        found[spread] = [loss.detach(), *(weight.grad for weight in weights)]
        answer = network.eval().generate(input_ids=ids, max_new_tokens=4, do_sample=False)
        found[spread].append(answer)
        assert bool(whole_layers(network)) != spread
    for alone, together in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(together, alone)


@pytest.mark.sharding
@pytest.mark.usefixtures("able", "group_of_one")
def test_on_gpus_too_the_adapter_of_a_spread_model_is_averaged(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    import torch
    from accelerate import Accelerator, accelerator

    from flashrun_trainer import sharding

    class OnCpu(torch.nn.parallel.DistributedDataParallel):
        """Takes a model as accelerate gives it on GPUs."""

        def __init__(self, module: Any, device_ids: Any, output_device: Any) -> None:
            super().__init__(module)

    # What there is with several GPUs, and put back what is changed for good.
    monkeypatch.setattr(Accelerator, "multi_device", True)
    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", OnCpu)
    monkeypatch.setattr(accelerator, "model_has_dtensor", accelerator.model_has_dtensor)
    network = adapted(tiny_model, spread=True)
    sharding.exclude_shards_from_ddp(network)

    averaged = Accelerator(cpu=True).prepare_model(network)

    assert isinstance(averaged, OnCpu)
    names = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert {name for name in names if "lora_" not in name} == set()
    assert not names & averaged.parameters_to_ignore
    assert set(whole_layers(network)) == set()
