"""Which layers an adapter changes, over tiny random models of many families."""

from typing import Any

import pytest

from flashrun.api.exits import Exit
from flashrun.api.records import AdaptedLayers
from flashrun.api.trainer_choices import RoutedExperts
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer.random_models import random_model

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

QKVO = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}
NONE, FROZEN, TRAINED = RoutedExperts.NONE, RoutedExperts.FROZEN, RoutedExperts.TRAINED


def adapt(model: Any, names: Any, exclude: str | None = None) -> Any:
    """The model with an adapter as PEFT makes it."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=names, exclude_modules=exclude, task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def adapted(model: Any) -> AdaptedLayers:
    """What a fresh adapter changes."""
    from flashrun_trainer import adapter_layers

    return adapter_layers.describe(adapt(model, *adapter_layers.find_targets(model)))


@pytest.mark.parametrize(
    ("family", "names", "least", "experts"),
    [
        ("Qwen3", QKVO | MLP, 100, NONE),
        ("Phi-3", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}, 100, NONE),
        ("Phi-2", {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"}, 100, NONE),
        ("GLM-4", QKVO | {"gate_up_proj", "down_proj"}, 100, NONE),
        ("GPT-NeoX", {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}, 100, NONE),
        (
            "LFM2",
            {"in_proj", "out_proj", "q_proj", "k_proj", "v_proj", "w1", "w2", "w3"},
            100,
            NONE,
        ),
        # The router has less than 5 % of the weights of these small layers.
        ("Mixtral", QKVO, 95, FROZEN),
        ("GPT-OSS", QKVO, 95, FROZEN),
        ("Qwen3 with experts", QKVO, 95, FROZEN),
        ("GLM-4 with experts", QKVO, 45, FROZEN),
        ("Qwen3-Next", QKVO | {"in_proj_qkvz", "out_proj"}, 60, FROZEN),
        # Mamba's kernels read out_proj without calling it.
        ("Nemotron-H", QKVO | {"in_proj", "up_proj", "down_proj"}, 80, NONE),
        ("Granite with Mamba", QKVO | {"in_proj", "input_linear", "output_linear"}, 75, FROZEN),
    ],
)
def test_the_large_layers_of_a_family_are_adapted_and_never_its_routed_experts(
    family: str, names: set[str], least: int, experts: RoutedExperts
):
    found = adapted(random_model(family))
    assert set(found.layers) == names
    assert found.percent >= least
    assert found.routed_experts is experts


def test_the_share_is_that_of_the_layers_weights_rounded_down():
    from flashrun_trainer import adapter_layers

    found = adapter_layers.describe(adapt(random_model("Phi-3"), ["o_proj", "down_proj"]))
    # Two layers of width 32 with 4 heads of 8, 2 of them for keys and values, and an MLP of 48.
    o_proj, down_proj = 32 * 32, 48 * 32
    qkv_proj, gate_up_proj = 32 * (32 + 16 + 16), 32 * 96
    share = (o_proj + down_proj) / (o_proj + down_proj + qkv_proj + gate_up_proj)
    assert found.percent == int(100 * share) == 33
    assert found.layers == ("down_proj", "o_proj")
    warning = adapter_layers.share_warning(found)
    assert warning.startswith("the adapter changes 33 % of the language model's weights, in layers")
    assert "down_proj, o_proj" in warning
    assert adapter_layers.share_warning(found.replace(percent=34)) == ""


def test_routed_experts_that_peft_adapts_are_reported():
    from flashrun_trainer import adapter_layers

    model = random_model("Qwen3 with experts")
    found = adapter_layers.describe(adapt(model, ["q_proj", "gate_proj", "up_proj", "down_proj"]))
    assert found.routed_experts is TRAINED
    assert found.layers == ("down_proj", "gate_up_proj", "q_proj")
    assert "its routed experts are trained" in adapter_layers.describe_in_words(found)


def test_a_model_without_a_known_layer_is_refused_by_the_names_of_its_layers():
    from flashrun_trainer import adapter_layers

    with pytest.raises(TrainerError) as error:
        adapter_layers.find_targets(random_model("RWKV"))
    assert (error.value.code, error.value.reason) == (Exit.MODEL_UNAVAILABLE, "LayersUnknown")
    assert error.value.message == (
        "no layer of RwkvForCausalLM has a name that an adapter can be trained on; its layers are "
        "head, key, output, receptance, value"
    )


def llava() -> Any:
    """A multimodal model whose vision encoder has layers of the same names."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    text = LlamaConfig(**sizes, num_attention_heads=2, vocab_size=128)
    vision = CLIPVisionConfig(**sizes, num_attention_heads=2, image_size=28, patch_size=14)
    config = LlavaConfig(text_config=text, vision_config=vision, image_token_index=127)
    return LlavaForConditionalGeneration(config)


@pytest.mark.parametrize("pattern", [None, r".*language_model.*\.(q_proj|v_proj)"])
def test_layers_of_a_vision_encoder_are_excluded_although_names_are_the_same(pattern: str | None):
    from flashrun_trainer import adapter_layers

    model = llava()
    names, exclude = (pattern, None) if pattern else adapter_layers.find_targets(model)
    joined = adapt(model, names, exclude)
    adapter_layers.simplify_config(joined)
    config = joined.peft_config["default"]
    assert config.target_modules == ({"q_proj", "v_proj"} if pattern else QKVO | MLP)
    assert config.auto_mapping == {
        "base_model_class": "LlavaForConditionalGeneration",
        "parent_library": "transformers",
    }
    # What is published selects the same layers again.
    again = adapt(llava(), config.target_modules, config.exclude_modules)
    names = [name for name, weight in again.named_parameters() if weight.requires_grad]
    trained = [name for name, weight in joined.named_parameters() if weight.requires_grad]
    assert names == trained
    assert not [name for name in names if "vision" in name]
    # Attention has 4 squares of width 32 per layer, and the MLP 3 matrices of 32 by 48.
    share = 2 * 32 * 32 / (4 * 32 * 32 + 3 * 32 * 48) if pattern else 1
    assert adapter_layers.describe(joined).percent == int(100 * share)


def test_names_and_exclusions_select_exactly_the_layers():
    import torch

    from flashrun_trainer import adapter_layers

    def layer() -> torch.nn.Module:
        experts = [torch.nn.ModuleDict({"w1": torch.nn.Linear(2, 2)}) for _ in range(2)]
        parts = {"w1": torch.nn.Linear(2, 2), "experts": torch.nn.ModuleList(experts)}
        return torch.nn.ModuleDict(parts)

    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([layer(), layer()])})
    layers = ["layers.0.w1", "layers.1.w1"]
    assert adapter_layers.targets_of(model, layers) == (
        ["w1"],
        r"layers\.\d+\.experts(\..*)?",
    )
    assert adapter_layers.targets_of(model, layers[:1]) == (
        ["w1"],
        r"layers\.1(\..*)?|layers\.\d+\.experts(\..*)?",
    )


def test_an_adapter_of_the_class_that_loaders_take_needs_no_mapping():
    from flashrun_trainer import adapter_layers

    joined = adapt(random_model("Qwen3"), r".*\.(q_proj|v_proj)")
    adapter_layers.simplify_config(joined)
    config = joined.peft_config["default"]
    assert (config.auto_mapping, config.exclude_modules) == (None, None)
    assert config.target_modules == {"q_proj", "v_proj"}
