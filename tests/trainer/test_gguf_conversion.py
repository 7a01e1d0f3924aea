"""GGUF files become folders that can be trained."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flashrun_trainer import gguf_conversion

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]
SIZE, HEADS = 32, 2
THETA = 500_000.0
TOKENS = (
    *("<s>", "</s>", "a", "b", "ab", "Ġ", "Ċ", "ĊĊ", "1", "2", "12", "ba"),
    *(f"t{number}" for number in range(52)),
)


def write_gguf(
    path: Path,
    architecture: str = "llama",
    template: str = "{{ messages }}",
    *,
    split: str = "gpt-2",
    divisors: Mapping[str, list[float]] = {},
    scaling: str = "",
) -> None:
    """Write a model of one layer, with matrices in Q8_0 and, if given, scaled positions."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(SIZE)
    writer.add_feed_forward_length(SIZE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(SIZE // HEADS)
    writer.add_rope_freq_base(THETA)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(TOKENS))
    writer.add_token_merges(["a b", "Ċ Ċ", "1 2"])
    if split:
        writer.add_tokenizer_pre(split)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    if template:
        writer.add_chat_template(template)
    if scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling))
        writer.add_rope_scaling_factor(4.0)
    for name, numbers in divisors.items():
        writer.add_tensor(name, np.array(numbers, np.float32))
    kind = gguf.GGMLQuantizationType.Q8_0
    random = np.random.default_rng(0)
    layers = [f"blk.0.{name}" for name in ("attn_q", "attn_k", "attn_v", "attn_output")]
    layers += [f"blk.0.ffn_{name}" for name in ("gate", "up", "down")]
    for name in ("token_embd", *layers):
        rows = len(TOKENS) if name == "token_embd" else SIZE
        matrix = random.standard_normal((rows, SIZE)).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(matrix, kind), raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(SIZE, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_quantized_file_becomes_a_plain_model_with_the_same_weights(tmp_path: Path) -> None:
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_gguf(tmp_path / "small.gguf")
    assert gguf_conversion.main(str(tmp_path / "small.gguf"), str(tmp_path / "model")) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    [stored] = [
        tensor
        for tensor in gguf.GGUFReader(str(tmp_path / "small.gguf")).tensors
        if tensor.name == "blk.0.ffn_up.weight"
    ]
    numbers = gguf.quants.dequantize(stored.data, stored.tensor_type)

    assert not hasattr(model.config, "quantization_config")
    assert model.dtype is torch.bfloat16
    weight = model.model.layers[0].mlp.up_proj.weight
    assert torch.equal(weight, torch.tensor(numbers).to(torch.bfloat16))
    assert tokenizer.chat_template == "{{ messages }}"
    assert tokenizer.eos_token == "</s>"


def llama3_divisors(factor: float, original: int = 8192) -> list[float]:
    """What Llama 3.1 divides the frequencies of a head by, from wavelengths."""
    divisors = []
    for index in range(SIZE // HEADS // 2):
        length = 2 * math.pi * THETA ** (2 * index / (SIZE // HEADS))
        smooth = (original / length - 1.0) / (4.0 - 1.0)
        between = 1 / ((1 - smooth) / factor + smooth)
        divisors.append(1.0 if length < original / 4 else factor if length > original else between)
    return divisors


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_a_llama_keeps_the_scaling_of_its_positions(tmp_path: Path, factor: float) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    divisors = llama3_divisors(factor)
    write_gguf(tmp_path / "small.gguf", divisors={"rope_freqs.weight": divisors})
    assert gguf_conversion.main(str(tmp_path / "small.gguf"), str(tmp_path / "model")) == 0
    rotary = AutoModelForCausalLM.from_pretrained(tmp_path / "model").model.rotary_emb
    half = len(divisors)
    plain = THETA ** -(torch.arange(half) / half)

    assert rotary.rope_type == "llama3"
    assert {1.0, factor} < set(divisors)
    assert torch.allclose(plain / rotary.inv_freq, torch.tensor(divisors), rtol=1e-3)


SPLITS = [
    ("a line feed stays with the digit behind it", "gpt-2", ["a", "Ċ", "Ċ", "12", "b", "a"]),
    ("each digit is split off", "smollm", ["a", "ĊĊ", "1", "2", "b", "a"]),
    ("the same of another family", "refact", ["a", "ĊĊ", "1", "2", "b", "a"]),
    ("transformers knows this one", "qwen2", ["a", "ĊĊ", "1", "2", "b", "a"]),
    ("digits and words that are tokens stay whole", "llama-bpe", ["a", "ĊĊ", "12", "ba"]),
    ("digits do not, words do", "tekken", ["a", "ĊĊ", "1", "2", "ba"]),
]


@pytest.mark.parametrize(
    ("split", "tokens"), [case[1:] for case in SPLITS], ids=[case[0] for case in SPLITS]
)
def test_text_is_split_as_the_model_has_learned_it(
    tmp_path: Path, split: str, tokens: list[str]
) -> None:
    from transformers import AutoTokenizer

    write_gguf(tmp_path / "small.gguf", split=split)
    assert gguf_conversion.main(str(tmp_path / "small.gguf"), str(tmp_path / "model")) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")

    assert tokenizer.tokenize("a\n\n12ba") == tokens
    assert tokenizer.decode(tokenizer("a\n\n12ba")["input_ids"]) == "a\n\n12ba"


REFUSED = {
    "an unknown architecture": {"architecture": "madeup"},
    "positions that YaRN scales": {"scaling": "yarn"},
    "positions that are divided by other numbers than Llama's": {
        "divisors": {"rope_freqs.weight": llama3_divisors(8.0, original=4096)}
    },
    "positions that are divided by numbers for two lengths": {
        "divisors": {"rope_factors_long.weight": [2.0] * 8, "rope_factors_short.weight": [1.0] * 8}
    },
    "a file without a chat template": {"template": ""},
    "a split that transformers does not read": {"split": "viking"},
    "a file that does not name its split": {"split": ""},
}


@pytest.mark.parametrize("given", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_trained_is_refused_in_one_line(
    tmp_path: Path, given: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(tmp_path / "small.gguf", **given)

    assert gguf_conversion.main(str(tmp_path / "small.gguf"), str(tmp_path / "model")) == 1
    assert "small.gguf" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["small.gguf"]


def test_a_file_that_was_cut_off_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(tmp_path / "small.gguf")
    whole = (tmp_path / "small.gguf").read_bytes()
    (tmp_path / "small.gguf").write_bytes(whole[: len(whole) // 2])

    assert gguf_conversion.main(str(tmp_path / "small.gguf"), str(tmp_path / "model")) == 1
    assert "small.gguf cannot be converted" in capsys.readouterr().err.splitlines()[-1]
