"""Which folders hold a model that can be trained, and what the catalog says about it."""

from typing import Any

import pytest

from flashrun.api.catalog import Source, Thinking
from flashrun.plan.model_check import (
    ModelFiles,
    WeightsFile,
    check_model,
    estimate_vram,
    model_entry,
)

CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048}
TOKENIZER = {"chat_template": "{{ messages }}", "eos_token": "</s>"}
ONE = WeightsFile(frozenset({"a", "b"}), 135_000_000)
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def files(
    documents: dict[str, Any] | None = None,
    weights: dict[str, WeightsFile] | None = None,
    without: tuple[str, ...] = (),
    besides: tuple[str, ...] = (),
    **more: Any,
) -> ModelFiles:
    """A model that can be trained, with changes."""
    found = {"config.json": CONFIG, "tokenizer_config.json": TOKENIZER, **(documents or {})}
    stored = {"model.safetensors": ONE} if weights is None else weights
    names = {*found, *stored, "tokenizer.json", *besides, *more.get("broken", {})} - set(without)
    return ModelFiles(
        sizes=dict.fromkeys(names, 1),
        documents={name: value for name, value in found.items() if name in names},
        weights=stored,
        **more,
    )


def sharded(lost: tuple[str, ...] = (), **index: Any) -> ModelFiles:
    places = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}, **index}
    stored = {SHARDS[0]: WeightsFile(frozenset("a"), 1), SHARDS[1]: WeightsFile(frozenset("b"), 1)}
    return files({INDEX: places}, {n: w for n, w in stored.items() if n not in lost})


GOOD = {
    "one file of weights": files(),
    "two files of weights with their index": sharded(),
    "a template in a file of its own": files(
        {"tokenizer_config.json": {"eos_token": "e"}}, template="{{ messages }}"
    ),
    "several named templates": files(
        {
            "tokenizer_config.json": {
                "eos_token": "e",
                "chat_template": [{"name": "default", "template": "{{ messages }}"}],
            }
        }
    ),
    "an end token as an object": files(
        {"tokenizer_config.json": {**TOKENIZER, "eos_token": {"content": "</s>"}}}
    ),
    "an end token in the map of special tokens": files(
        {
            "tokenizer_config.json": {"chat_template": "{{ messages }}"},
            "special_tokens_map.json": {"eos_token": "</s>"},
        }
    ),
    "a tokenizer of SentencePiece": files(
        without=("tokenizer.json",), besides=("tokenizer.model",)
    ),
}


@pytest.mark.parametrize("given", GOOD.values(), ids=GOOD.keys())
def test_a_model_that_can_be_trained_has_no_problems(given: ModelFiles) -> None:
    assert check_model(given).problems == ()


BAD = {
    "no config": (files(without=("config.json",)), "config.json is missing: give the whole folder"),
    "a config that is a list": (
        files({"config.json": []}),
        "config.json names no architecture",
    ),
    "no architecture": (files({"config.json": {}}), "config.json names no architecture"),
    "an unknown architecture": (
        files({"config.json": {"architectures": ["MadeUpForCausalLM"]}}),
        "the trainer does not know the architecture MadeUpForCausalLM of config.json",
    ),
    "code of its own": (
        files(
            {"config.json": {"architectures": ["OwnLM"], "auto_map": {"AutoModel": "own.OwnLM"}}}
        ),
        "the trainer does not know the architecture OwnLM of config.json, and code of a model is "
        "never run",
    ),
    "an encoder": (
        files({"config.json": {"architectures": ["BertForMaskedLM"]}}),
        "the trainer does not know the architecture BertForMaskedLM of config.json",
    ),
    "pickled weights": (
        files(weights={}, besides=("pytorch_model.bin",)),
        "the weights are a pickle (pytorch_model.bin), which can run code when it is loaded: "
        "convert them to safetensors",
    ),
    "no weights": (files(weights={}), "there are no weights: *.safetensors is missing"),
    "a missing file of weights": (
        sharded(lost=(SHARDS[1],)),
        f"1 of 2 files of weights are missing, such as {SHARDS[1]}",
    ),
    "files of weights without an index": (
        files(weights={SHARDS[0]: ONE}),
        f"{INDEX} is missing, and the weights are in several files",
    ),
    "an index of other weights": (
        sharded(weight_map={"a": SHARDS[0], "c": SHARDS[1]}),
        f"1 tensors are not in the file that {INDEX} names, such as c",
    ),
    "an index without a map": (sharded(weight_map=7), f"{INDEX} has no weight_map"),
    "weights that were cut off": (
        files(weights={}, broken={"model.safetensors": "has 5 bytes"}),
        "model.safetensors has 5 bytes",
    ),
    "no tokenizer": (
        files(without=("tokenizer.json",)),
        "the tokenizer is missing: tokenizer.json or tokenizer.model",
    ),
    "no template": (
        files({"tokenizer_config.json": {"eos_token": "e"}}),
        "there is no chat template (chat_template.jinja, or chat_template in "
        "tokenizer_config.json): use an instruction-tuned model",
    ),
    "no end token": (
        files({"tokenizer_config.json": {"chat_template": "{{ messages }}"}}),
        "the tokenizer has no end-of-sequence token (eos_token), so no answer would end",
    ),
}


@pytest.mark.parametrize(("given", "problem"), BAD.values(), ids=BAD.keys())
def test_a_model_that_cannot_be_trained_has_one_problem(given: ModelFiles, problem: str) -> None:
    [found] = check_model(given).problems
    assert found.startswith(problem)


def test_pickles_and_what_training_does_not_need_stay_behind() -> None:
    others = (
        "pytorch_model.bin",
        "README.md",
        "modeling_own.py",
        ".gitattributes",
        "tokenizer.pkl",
    )
    checked = check_model(files(besides=others))

    assert checked.problems == ()
    assert set(checked.left_out) == set(others)
    assert "model.safetensors" in checked.uploaded


def test_the_entry_of_the_catalog_follows_from_the_files() -> None:
    entry = model_entry("org/small", "1", check_model(files()).facts)

    assert (entry.id, entry.revision, entry.source) == ("org/small", "1", Source.MIRROR)
    assert (entry.parameters, entry.context, entry.thinking) == (0.14, 2048, Thinking.NONE)
    assert (entry.vram_sft, entry.vram_grpo) == (9, 9)


@pytest.mark.parametrize(
    ("template", "thinking"),
    [
        ("{{ messages }}", Thinking.NONE),
        ("{% if enable_thinking %}<think>{% endif %}", Thinking.HYBRID),
        ("{{ messages }}<think>", Thinking.ALWAYS),
    ],
)
def test_whether_a_model_reasons_follows_from_its_template(
    template: str, thinking: Thinking
) -> None:
    assert check_model(files(template=template)).thinking is thinking


def test_the_context_of_a_multimodal_model_is_that_of_its_text_model() -> None:
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": {"max_position_embeddings": 4096},
    }
    assert check_model(files({"config.json": config})).context == 4096


@pytest.mark.parametrize(
    ("billions", "sft", "grpo"), [(0.135, 9, 9), (0.9, 12, 14), (4.7, 26, 39), (9.7, 45, 72)]
)
def test_estimates_of_memory_lie_near_the_built_in_models(
    billions: float, sft: int, grpo: int
) -> None:
    assert estimate_vram(billions) == (sft, grpo)
