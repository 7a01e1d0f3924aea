"""What a model card says about loading and serving; ``trainer/test_model.py`` runs the code."""

from typing import Any

import pytest

from flashrun.api.adapter_use import is_lora_config, loading_code, serving_commands, vllm_rank
from flashrun.api.catalog import Source
from flashrun.api.records import ResolvedModel

HUB = ResolvedModel(id="org/model", source=Source.HUB, revision="abc")


def test_the_code_names_the_revision_on_the_hub_and_the_class_that_was_trained() -> None:
    mapping = {"auto_mapping": {"base_model_class": "OtherForCausalLM"}}

    code = loading_code(mapping, HUB)

    assert 'base, revision = "org/model", "abc"' in code
    assert "model = OtherForCausalLM.from_pretrained(base, revision=revision)" in code
    assert 'base = "org/model"  # its folder' in loading_code(
        {}, ResolvedModel(id="org/model", source=Source.MIRROR, revision="1")
    )


def test_only_servers_that_take_the_adapter_are_named() -> None:
    plain = serving_commands({"r": 9, "target_modules": ["q_proj"]}, "mine", "org/model")
    strange = {"r": 1024, "target_modules": ["in_proj_qkv"]}

    assert "--max-lora-rank 16 --lora-modules mine=." in plain
    assert "sglang" in plain
    parameters = {"r": 8, "target_modules": None, "target_parameters": ["experts.up"]}
    for config in (strange, parameters):
        assert serving_commands(config, "mine", "org/model").startswith("# no server that we know")


@pytest.mark.parametrize(("rank", "most"), [(1, 1), (8, 8), (33, 64), (512, 512), (513, None)])
def test_vllm_has_the_next_larger_rank(rank: int, most: int | None) -> None:
    assert vllm_rank(rank) == most


LORA = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}


@pytest.mark.parametrize(
    ("config", "usable"),
    [
        (LORA, True),
        (LORA | {"target_modules": "all-linear", "lora_alpha": 16.0}, True),
        (LORA | {"auto_mapping": None}, True),
        (LORA | {"auto_mapping": {"base_model_class": "Qwen3ForCausalLM"}}, True),
        ([], False),
        (None, False),
        (LORA | {"peft_type": "IA3"}, False),
        ({key: value for key, value in LORA.items() if key != "r"}, False),
        (LORA | {"r": "8"}, False),
        (LORA | {"r": float("nan")}, False),
        (LORA | {"r": 0}, False),
        (LORA | {"lora_alpha": "16 | 2"}, False),
        (LORA | {"target_modules": None}, False),
        (LORA | {"target_modules": None, "target_parameters": []}, False),
        (LORA | {"target_modules": None, "target_parameters": ["experts.up", 7]}, False),
        (LORA | {"target_modules": None, "target_parameters": ["experts.up"]}, True),
        (LORA | {"target_modules": [["q_proj"]]}, False),
        (LORA | {"auto_mapping": "x"}, False),
        (LORA | {"auto_mapping": ["x"]}, False),
        (LORA | {"auto_mapping": {"base_model_class": 5}}, False),
        (LORA | {"auto_mapping": {"base_model_class": "os\n```\n# title"}}, False),
    ],
)
def test_a_config_is_told_from_what_only_looks_like_one(config: Any, usable: bool) -> None:
    assert is_lora_config(config) is usable
