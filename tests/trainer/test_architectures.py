"""Every architecture of the catalog, as a tiny random model: a step of each method, on text."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.records import ResolvedModel
from flashrun_trainer.data.packing import Layout
from tests.trainer.pods import MODEL, TrainerPod, Workshop, resolved

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
HYBRID = TINY | {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
EXPERTS = HYBRID | {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
VISION = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
    "patch_size": 4,
}

ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}
LINEAR_ATTENTION = {"in_proj_qkv", "in_proj_z", "out_proj"}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any], str, set[str], Layout]] = {
    "Qwen3": ("Qwen3ForCausalLM", TINY, "model.layers", ATTENTION | MLP, Layout.ROWS),
    "MiniCPM5": ("LlamaForCausalLM", TINY, "model.layers", ATTENTION | MLP, Layout.ROWS),
    "Qwen3.5, its language model": (
        "Qwen3_5ForCausalLM",
        HYBRID,
        "model.layers",
        ATTENTION | MLP | LINEAR_ATTENTION,
        Layout.PADDED,
    ),
    "Qwen3.5": (
        "Qwen3_5ForConditionalGeneration",
        {"text_config": HYBRID, "vision_config": VISION, "tie_word_embeddings": False},
        "model.language_model.layers",
        ATTENTION | MLP | LINEAR_ATTENTION,
        Layout.PADDED,
    ),
    "Qwen3.6 with experts": (
        "Qwen3_5MoeForConditionalGeneration",
        {"text_config": EXPERTS, "vision_config": VISION, "tie_word_embeddings": False},
        "model.language_model.layers",
        ATTENTION | MLP | LINEAR_ATTENTION,
        Layout.PADDED,
    ),
}
"""Class, config, where vLLM and PEFT look for layers, which of them are adapted, how rows are laid
out without special kernels."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(
    request: pytest.FixtureRequest, workshop: Workshop, tiny_model: Path
) -> tuple[str, Path]:
    """A random model in the pods' model cache, with the tiny model's tokenizer."""
    import torch
    import transformers
    from transformers import AutoTokenizer

    class_name, settings, *_ = ARCHITECTURES[request.param]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    kind = getattr(transformers, class_name)
    inner = settings.get("text_config")
    config = kind.config_class(
        **({**settings, "text_config": inner | ids} if inner else settings | ids)
    )
    torch.manual_seed(7)
    model_id = f"tiny/{class_name}"
    folder = workshop.folder / "model" / model_id.replace("/", "--") / MODEL.revision
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return request.param, folder


def pod_of(workshop: Workshop, folder: Path, algorithm: str) -> TrainerPod:
    knobs = {"max_steps": 1} if algorithm == "sft" else {"steps": 1, "kl_penalty_coef": 0.1}
    model = ResolvedModel(
        id=folder.parent.name.replace("--", "/"), source=MODEL.source, revision=MODEL.revision
    )
    run = resolved(algorithm, learning_rate=0.01, save_every=1, **knobs)
    return workshop.pod(run.model_copy(update={"model": model}))


def keys_of(pod: TrainerPod) -> list[str]:
    """The names of the final adapter's weights."""
    from safetensors import safe_open

    path = pod.folder / "adapter_model.safetensors"
    path.write_bytes(pod.published(path.name))
    path.with_name("adapter_config.json").write_bytes(pod.published("adapter_config.json"))
    with safe_open(path, "pt") as file:
        return list(file.keys())


@pytest.mark.parametrize("algorithm", ["sft", "grpo"])
def test_a_step_changes_the_language_model_only_under_the_names_that_serving_expects(
    workshop: Workshop, architecture: tuple[str, Path], algorithm: str
):
    from flashrun_trainer import model

    name, folder = architecture
    _, _, layers, adapted, _ = ARCHITECTURES[name]
    pod = pod_of(workshop, folder, algorithm)

    assert pod.train() == 0, pod.termination

    keys = keys_of(pod)
    pattern = rf"base_model\.model\.{re.escape(layers)}\.\d+\.[a-z_.]+\.lora_[AB]\.weight"
    assert [key for key in keys if not re.fullmatch(pattern, key)] == []
    assert {key.split(".")[-3] for key in keys} == adapted
    assert not [key for key in keys if "visual" in key or "experts." in key or "lm_head" in key]
    # Routers are frozen, so nothing is asked of the balance between experts.
    assert pod.values("aux_loss") == []
    config = json.loads((pod.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == pod.run.model.id
    # PEFT loads all of it onto the class that serving loads.
    model.attach_adapter(model.load(folder), pod.folder, "reloaded")


def test_examples_share_rows_only_where_layers_keep_them_apart(architecture: tuple[str, Path]):
    from flashrun_trainer import model

    name, folder = architecture
    assert model.packing_layout(model.load(folder)) is ARCHITECTURES[name][-1]


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


def test_how_its_makers_sample_a_model_is_left_to_them(tiny_model: Path, tmp_path: Path):
    from flashrun_trainer import model as base_model

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    own = {"eos_token_id": [2, 3], "min_p": 0.9, "suppress_tokens": [7], "top_k": 1}
    (folder / "generation_config.json").write_text(json.dumps(own))
    tokenizer, network = base_model.load_tokenizer(folder), base_model.load(folder)
    assert network.generation_config.min_p is None
    assert network.generation_config.suppress_tokens is None
    ends = {2, 3, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert base_model.end_token_ids(network, tokenizer) == ends
