"""Which layers of a base model an adapter changes, and what share of its weights they hold.

Layers are known by the names that model families give to their large projections. A fresh adapter
is configured with a list of these names, because servers refuse a pattern. What PEFT made of the
list is read back from the model with its adapter.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from flashrun.api.bounds import LAYER_NAME_LIMIT, LAYER_NAMES_LIMIT
from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import AdaptedLayers
from flashrun.api.trainer_choices import RoutedExperts
from flashrun_trainer.pod.trainer_errors import TrainerError

_NAMES: Final = frozenset(
    # Attention: separate projections, fused ones, and those of latent attention.
    {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "out_proj",
        "qkv_proj",
        "query_key_value",
        "Wqkv",
        "Wo",
        "dense",
        "c_attn",
        "q_a_proj",
        "q_b_proj",
        "kv_a_proj_with_mqa",
    }
    # Layers with a state: linear attention, short convolutions, Mamba.
    | {"in_proj", "in_proj_qkv", "in_proj_z", "in_proj_qkvz"}
    # MLP: separate projections and fused ones.
    | {
        "gate_proj",
        "up_proj",
        "down_proj",
        "gate_up_proj",
        "fc1",
        "fc2",
        "fc_in",
        "fc_out",
        "w1",
        "w2",
        "w3",
        "Wi",
        "c_fc",
        "c_proj",
        "dense_h_to_4h",
        "dense_4h_to_h",
        "input_linear",
        "output_linear",
    }
)
"""Names of the layers that an adapter changes.

Small gates, routers and the output layer are not among them: vLLM or TRL cannot serve or train an
adapter on them. Neither is ``kv_b_proj``, which servers multiply into other weights.
"""
_BYPASSED_IN_MAMBA: Final = "out_proj"
"""A layer of which Mamba's kernels read the weight without calling it: an adapter has no effect."""
_MAMBA_WEIGHTS: Final = ("A_log", "D")
"""Weights that a Mamba layer has, and linear attention has not both."""
_EXPERT_COUNTS: Final = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Keys of configs with the number of routed experts."""
_ROUTED: Final = re.compile(r"(^|\.)experts(\.|$)")
_LEAST_SHARE: Final = 1 / 3
"""Share of the weights below which the run gets a warning."""
_NAMED_LAYERS: Final = 12
"""Most names of layers in a message."""


class Targets(NamedTuple):
    """The layers of an adapter in PEFT's terms."""

    names: list[str]
    """Last parts of the layers' names."""
    exclude: str | None
    """Pattern of the layers that have such a name and are not changed; None if there are none."""


def find_targets(model: Any) -> Targets:
    """Return the layers that a fresh adapter changes: those of the language model that are known.

    Raises:
        TrainerError: there are none.
    """
    known = [name for name, _ in _linear_layers(model) if _is_adapted(model, name)]
    trainable = {leaf for leaf in map(_leaf, known) if not _becomes_experts(model, leaf)}
    layers = [name for name in known if _leaf(name) in trainable]
    if not layers:
        raise _no_known_layer(model)
    return targets_of(model, layers)


def targets_of(model: Any, layers: Iterable[str]) -> Targets:
    """Return names, and a pattern of exclusions, that select exactly ``layers`` of ``model``."""
    layers = set(layers)
    names = {_leaf(layer) for layer in layers}
    every_name = [name for name, _ in model.named_modules()]
    others = {name for name in every_name if _leaf(name) in names} - layers
    parents = {parent for layer in layers for parent in _ancestors(layer)}
    # Exclude whole branches, such as a vision encoder.
    branches = {
        next(branch for branch in (*_ancestors(name), name) if branch not in parents)
        for name in others
    }
    patterns = sorted({_branch_pattern(branch, layers) for branch in branches})
    return Targets(sorted(names), "|".join(patterns) or None)


def _branch_pattern(branch: str, kept: Iterable[str]) -> str:
    """Return a pattern of a branch: in every layer, unless that includes a kept one."""
    escaped = re.escape(branch)
    in_every_layer = re.sub(r"(?<=\\\.)\d+(?=\\\.|$)", r"\\d+", escaped)
    pattern = re.compile(rf"{in_every_layer}(\..*)?")
    return rf"{escaped}(\..*)?" if any(map(pattern.fullmatch, kept)) else pattern.pattern


def simplify_config(peft_model: Any) -> None:
    """Make the adapter's config a list of names where it is a pattern, and name the model's class.

    PEFT's loaders take ``AutoModelForCausalLM`` unless the config maps to another class. For a
    multimodal model that would be a class whose weights have other names.
    """
    from transformers import AutoModelForCausalLM

    config, model = peft_model.peft_config["default"], peft_model.get_base_model()
    if isinstance(config.target_modules, str):
        layers = list(peft_model.base_model.targeted_module_names)
        names, config.exclude_modules = targets_of(model, layers)
        config.target_modules = set(names)
    kind = type(model)
    loaded = AutoModelForCausalLM._model_mapping.get(type(model.config), None)
    config.auto_mapping = (
        None
        if kind is loaded
        else {"base_model_class": kind.__name__, "parent_library": "transformers"}
    )


def describe(peft_model: Any) -> AdaptedLayers:
    """Return which layers of the language model the adapter changes, read from the model itself.

    The share is that of the weights of its layers, without embeddings, output layer and routed
    experts.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = peft_model.get_base_model()
    adapted: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            parameter = getattr(module, "parameter_name", None)  # of a weight without a layer
            weight = module.get_param() if parameter else module.get_base_layer().weight
            adapted[id(weight)] = parameter or _leaf(name)
    weights, experts = _matrices(model)
    changed = sum(weight.numel() for weight in weights if id(weight) in adapted)
    routed = RoutedExperts.FROZEN if experts else RoutedExperts.NONE
    if any(id(weight) in adapted for weight in experts):
        routed = RoutedExperts.TRAINED
    names = sorted({name[:LAYER_NAME_LIMIT] for name in adapted.values()})
    return AdaptedLayers(
        layers=tuple(names[:LAYER_NAMES_LIMIT]),
        percent=100 * changed // max(sum(weight.numel() for weight in weights), 1),
        routed_experts=routed,
    )


def share_warning(adapted: AdaptedLayers) -> str:
    """Return a warning when little of the model is adapted, or an empty string."""
    if adapted.percent >= 100 * _LEAST_SHARE:
        return ""
    return (
        f"the adapter changes {adapted.percent} % of the language model's weights, in layers "
        f"{', '.join(adapted.layers[:_NAMED_LAYERS])}: the other layers have names that are not "
        "known, so expect less of this run than of a model whose layers are all adapted"
    )


def describe_in_words(adapted: AdaptedLayers) -> str:
    """Return one sentence for the log."""
    experts = {
        RoutedExperts.NONE: "",
        RoutedExperts.FROZEN: "; its routed experts are not trained",
        RoutedExperts.TRAINED: "; its routed experts are trained",
    }
    return (
        f"the adapter changes {adapted.percent} % of the language model's weights, without "
        f"embeddings and routed experts, in layers {', '.join(adapted.layers)}"
        f"{experts[adapted.routed_experts]}"
    )


def _is_adapted(model: Any, name: str) -> bool:
    if _leaf(name) not in _NAMES or _ROUTED.search(name):
        return False
    if not (name + ".").startswith(_language_model(model)):
        return False
    parent = model.get_submodule(name.rpartition(".")[0])
    is_mamba = all(hasattr(parent, weight) for weight in _MAMBA_WEIGHTS)
    return not (is_mamba and _leaf(name) == _BYPASSED_IN_MAMBA)


def _becomes_experts(model: Any, leaf: str) -> bool:
    """Return whether PEFT reads this name as weights of routed experts in this model.

    Experts used to have layers of their own, and PEFT still accepts the names of these: it adapts
    the experts' fused weights instead, with several times the rank.
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=[leaf])
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # one of two names whose weights are fused
        return True
    return bool(config.target_parameters)


def _language_model(model: Any) -> str:
    """Return the prefix of the language model's names: all of the model unless it has encoders."""
    if model.config.get_text_config() is model.config:
        return ""
    decoder = model.get_decoder()
    return next(
        (f"{name}." for name, part in model.named_modules() if part is decoder and name), ""
    )


def _linear_layers(model: Any) -> Iterator[tuple[str, Any]]:
    import torch
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D):
            yield name, module


def _matrices(model: Any) -> tuple[list[Any], list[Any]]:
    """Return the weights of the language model's layers, and those of its routed experts."""
    import torch

    prefix, output = _language_model(model), model.get_output_embeddings()
    config = model.config.get_text_config()
    counts = {getattr(config, key, None) for key in _EXPERT_COUNTS} - {None}
    weights: list[Any] = []
    experts: list[Any] = []
    left_out = (torch.nn.Embedding, torch.nn.modules.conv._ConvNd)
    for name, module in model.named_modules():
        if isinstance(module, left_out) or module is output:
            continue
        if not (name + ".").startswith(prefix):
            continue
        for leaf, weight in module.named_parameters(recurse=False):
            if weight.dim() < 2 or "lora_" in name:
                continue
            fused = weight.dim() == 3 and weight.shape[0] in counts
            routed = fused or _ROUTED.search(f"{name}.{leaf}")
            (experts if routed else weights).append(weight)
    return weights, experts


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _no_known_layer(model: Any) -> TrainerError:
    prefix = _language_model(model)
    layers = sorted({_leaf(name) for name, _ in _linear_layers(model) if name.startswith(prefix)})
    named = ", ".join(layers[:_NAMED_LAYERS]) or "none"
    more = f" and {len(layers) - _NAMED_LAYERS} more" if len(layers) > _NAMED_LAYERS else ""
    return TrainerError(
        Exit.MODEL_UNAVAILABLE,
        Reason.LAYERS_UNKNOWN,
        f"no layer of {type(model).__name__} has a name that an adapter can be trained on; its "
        f"layers are {named}{more}",
        "choose a model of another family",
    )
