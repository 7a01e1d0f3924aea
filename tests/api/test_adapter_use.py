"""What a model card says about loading and serving; ``trainer/test_model.py`` runs the code."""

import pytest

from flashrun.api.adapter_use import loading_code, serving_commands, vllm_rank
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
    assert serving_commands(strange, "mine", "org/model").startswith("# no server that we know")


@pytest.mark.parametrize(("rank", "most"), [(1, 1), (8, 8), (33, 64), (512, 512), (513, None)])
def test_vllm_has_the_next_larger_rank(rank: int, most: int | None) -> None:
    assert vllm_rank(rank) == most
