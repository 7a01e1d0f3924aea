"""Whether examples may share a row: tried with tiny random models of many families."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.records import Result
from flashrun.api.trainer_choices import Layout, RoutedExperts
from flashrun_trainer.pod.distributed import ProcessGroup
from tests.trainer.architectures import ARCHITECTURES
from tests.trainer.pods import Workshop, resolved
from tests.trainer.random_models import FAMILIES, random_model

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

KEEP_APART = ("Qwen3", "Llama", "Gemma 3", "Mixtral", "Qwen3 with experts", "Phi-3", "GLM-4")
LEAK = ("GPT-OSS", "Afmoe", "OPT", "MPT")
HAVE_STATE = ("LFM2", "Qwen3-Next", "Nemotron-H")


def logits(model: Any, ids: list[int], positions: list[int] | None = None) -> Any:
    """The logits of one row, computed without the code under test."""
    import torch

    more = {} if positions is None else {"position_ids": torch.tensor([positions])}
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False, **more).logits[0]


@pytest.mark.parametrize("family", [*KEEP_APART, *LEAK, *HAVE_STATE])
def test_examples_share_a_row_where_each_has_the_logits_that_it_has_alone(family: str):
    import torch

    from flashrun_trainer import row_layout

    model = random_model(family)
    first, second = list(range(70, 78)), list(range(90, 98))
    alone = torch.cat([logits(model, first), logits(model, second)])
    together = logits(model, first + second, [*range(8), *range(8)])
    same = bool(torch.allclose(alone, together, atol=1e-4 * float(alone.std())))

    choice = row_layout.choose_layout(model, ProcessGroup())

    assert (choice.layout is Layout.ROWS) == same == (family in KEEP_APART)
    assert bool(choice.reason) == (choice.layout is Layout.PADDED)
    class_name = FAMILIES[family][0]
    if family in LEAK:
        assert choice.reason.startswith(f"in {class_name}, an example changes")
    elif family in HAVE_STATE:
        assert choice.reason.startswith(f"layers of {class_name} carry a state")


def test_every_architecture_of_the_catalog_has_its_layout(architecture: tuple[str, Path]):
    from flashrun_trainer import model, row_layout

    name, folder = architecture
    choice = row_layout.choose_layout(model.load(folder), ProcessGroup())
    assert choice.layout is ARCHITECTURES[name][-1]


def test_a_model_that_cannot_compute_two_examples_in_a_row_gets_padded_rows(
    monkeypatch: pytest.MonkeyPatch,
):
    from flashrun_trainer import row_layout

    model = random_model("Qwen3")

    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError("position_ids")

    monkeypatch.setattr(model, "forward", refuse)
    choice = row_layout.choose_layout(model, ProcessGroup())
    reason = "Qwen3ForCausalLM did not compute two examples in a row (TypeError)"
    assert choice == (Layout.PADDED, reason)


@pytest.mark.parametrize("seen", [(True, False), (False, True)], ids=["leak", "failure"])
def test_what_one_rank_sees_decides_for_all(
    monkeypatch: pytest.MonkeyPatch, seen: tuple[bool, bool]
):
    from flashrun_trainer import row_layout

    monkeypatch.setattr(ProcessGroup, "any_rank", lambda _, *own: seen if not any(own) else own)
    choice = row_layout.choose_layout(random_model("Qwen3"), ProcessGroup())
    assert choice.layout is Layout.PADDED


def test_numbers_that_are_not_finite_count_as_a_leak():
    import torch

    from flashrun_trainer import row_layout

    model = random_model("Qwen3")
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    assert row_layout.influences_neighbour(model, Layout.ROWS)


def test_trying_leaves_the_model_and_the_random_numbers_as_they_were():
    import torch

    from flashrun_trainer import row_layout

    model = random_model("Mixtral").train()
    state = torch.get_rng_state()
    row_layout.choose_layout(model, ProcessGroup())
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())


def test_a_run_says_why_its_examples_do_not_share_rows(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    from flashrun_trainer import row_layout

    leak: Callable[..., bool] = lambda *_: True  # noqa: E731
    monkeypatch.setattr(row_layout, "influences_neighbour", leak)
    pod = workshop.pod(resolved("sft", max_steps=1))
    assert pod.train() == 0
    result = pod.store.get_json(names.result_key(pod.prefix), Result)
    batching = result.batching
    assert batching is not None
    reason = "in Qwen3ForCausalLM, an example changes what the model computes for its neighbour"
    assert batching.layout is Layout.PADDED
    assert batching.layout_reason.startswith(reason)
    assert f"of computed tokens are padding; {reason}" in caplog.text
    assert result.adapted is not None
    assert (result.adapted.percent, result.adapted.routed_experts) == (100, RoutedExperts.NONE)
    assert "the adapter changes 100 % of the language model's weights" in caplog.text
