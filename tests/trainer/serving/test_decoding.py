"""Answers token by token, and which adapters stay in memory."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three adapters of one random Llama."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tests.trainer.random_models import random_model

    folders = []
    for number in range(3):
        network = get_peft_model(random_model("Llama"), LoraConfig(r=4, target_modules=["q_proj"]))
        torch.manual_seed(number)
        for name, weight in network.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(weight, std=1.0)
        folders.append(tmp_path_factory.mktemp("adapters") / str(number))
        network.save_pretrained(folders[-1])
    return folders


def test_few_adapters_stay_in_memory_and_all_are_answered_with(
    adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flashrun_trainer.serving import decoding
    from flashrun_trainer.serving.openai_requests import Sampling
    from tests.trainer.random_models import random_model

    monkeypatch.setattr(decoding, "ADAPTERS_IN_MEMORY", 2)
    cache: Any = SimpleNamespace(folder_of=lambda name: adapters[int(name)])
    served = decoding.ServedModel(random_model("Llama"), "base", cache)

    def first_logprob(name: str) -> float:
        sampling = Sampling(1)
        [token] = served.answer(name, [5, 6, 7], frozenset(), sampling)
        return token.logprob

    of_base = first_logprob("base")
    once = [first_logprob(name) for name in "012"]
    assert list(served._loaded) == ["1", "2"]
    assert [first_logprob(name) for name in "012"] == once
    assert first_logprob("base") == of_base
    assert len({of_base, *once}) == 4


def test_sampled_tokens_are_among_those_with_most_of_the_probability() -> None:
    import torch

    from flashrun_trainer.serving.decoding import _choose
    from flashrun_trainer.serving.openai_requests import Sampling

    logits, generator = torch.tensor([0.5, 0.3, 0.15, 0.05]).log(), torch.Generator()
    generator.manual_seed(0)

    def draw(**given: float) -> set[int]:
        sampling = Sampling(1, 1.0, **given)  # type: ignore[arg-type]
        return {_choose(logits, sampling, generator).id for _ in range(200)}

    assert draw() == {0, 1, 2, 3}
    assert draw(top_p=0.8) == {0, 1}
    assert draw(top_p=0.01) == {0}
    likeliest = _choose(logits, Sampling(1, top_logprobs=2), generator)
    assert likeliest.logprob == pytest.approx(logits[0].item())
    assert [place for place, _ in likeliest.top] == [0, 1]
