"""A merged model answers as its adapter does with PEFT, and one that does not is refused."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.trainer.architectures import save_random_model
from tests.trainer.pods import Workshop

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def base(workshop: Workshop, tiny_model: Path) -> Path:
    return save_random_model("MiniCPM5", workshop, tiny_model)


@pytest.fixture(scope="module")
def adapter(workshop: Workshop, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the base model that changes its answers by much."""
    return random_adapter(base, tmp_path_factory.mktemp("adapter"), 0.2)


def random_adapter(base: Path, folder: Path, spread: float) -> Path:
    """Save an adapter with random weights; return its folder."""
    import torch
    from peft import LoraConfig, get_peft_model

    from flashrun_trainer import model

    torch.manual_seed(3)
    settings = LoraConfig(r=8, lora_alpha=32, target_modules=["q_proj", "v_proj", "down_proj"])
    network = get_peft_model(model.load(base), settings)
    for name, weight in network.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=spread)
    network.save_pretrained(folder)
    return folder


def with_dtype(base: Path, copy: Path, dtype: str) -> Path:
    """Copy a model whose config names another type of weights."""
    shutil.copytree(base, copy)
    config = json.loads((base / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "dtype": dtype}))
    return copy


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_merged_model_answers_as_peft_does(
    base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], dtype: str
) -> None:
    from safetensors import safe_open

    from flashrun_trainer import merged_model

    copy = with_dtype(base, tmp_path / "base", dtype)

    assert merged_model.main(str(copy), str(adapter), str(tmp_path / "merged")) == 0

    check = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert check["tokens"] == 48
    assert check["dtype"] == dtype
    if dtype == "float32":
        assert (check["same"], check["difference"] < 1e-3) == (48, True)
    with safe_open(tmp_path / "merged" / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "lora" in name]  # noqa: SIM118
    assert (tmp_path / "merged" / "tokenizer.json").exists()


def test_a_merged_model_that_answers_otherwise_is_refused_and_leaves_nothing(
    base: Path,
    adapter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from peft import PeftModel

    from flashrun_trainer import merged_model

    monkeypatch.setattr(
        PeftModel, "merge_and_unload", lambda network, **_: network.unload(), raising=False
    )

    assert merged_model.main(str(base), str(adapter), str(tmp_path / "merged")) == 1

    assert "the merged model differs from PEFT's by" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_of_another_model_is_refused_in_a_sentence(
    workshop: Workshop, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    from flashrun_trainer import merged_model

    other = save_random_model("Qwen3.5, its language model", workshop, tiny_model)

    with pytest.raises(merged_model.MergeRefused, match="does not fit the base model"):
        merged_model.merge(other, adapter, tmp_path / "merged")


# Defined only where both are named, so that the image's tests do not list it as skipped.
if {"LLAMA_CPP", "LLAMA_MODEL"} <= os.environ.keys():

    def test_the_gguf_file_of_llama_cpp_answers_as_peft_does(tmp_path: Path) -> None:
        """LLAMA_CPP is a folder of llama.cpp, LLAMA_MODEL one of a model whose tokenizer it knows.

        Its converter needs the package sentencepiece.
        """
        import torch
        import transformers
        from peft import PeftModel

        from flashrun.cli.models import merging
        from flashrun_trainer import merged_model

        base = Path(os.environ["LLAMA_MODEL"])
        adapter = random_adapter(base, tmp_path / "adapter", 0.02)
        copy = with_dtype(base, tmp_path / "base", "float32")
        merged_model.merge(copy, adapter, tmp_path / "merged")
        converter = merging.find_converter(Path(os.environ["LLAMA_CPP"]))
        merging.convert(converter, tmp_path / "merged", tmp_path / merging.GGUF_FILE)

        plain = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        network = PeftModel.from_pretrained(plain, adapter).eval()
        prompts = [f"What is {number} + {number * 7}?" for number in range(20)]
        answers = [merged_model._greedy(network, tokenizer, prompt) for prompt in prompts]
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path, gguf_file=merging.GGUF_FILE, dtype=torch.float32
        ).eval()
        check = merged_model.compare(loaded, answers, "float32")
        print(check)
        assert check.same == check.tokens
        assert check.difference < 0.01
