"""A GPU without memory: the trainer measures what fits, and what it advises does fit."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from flashrun.api.exits import Exit
from tests.trainer.pods import TrainerPod, Workshop, resolved

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

OUT = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture
def limit_micro_batches(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Let gradients of more than so many tokens fail; return the sizes of all that were tried."""
    import torch
    from trl import GRPOTrainer, SFTTrainer

    def limit(most: int) -> list[int]:
        tried: list[int] = []

        def starved(method: Any) -> Any:
            def compute(trainer: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
                keys = [
                    key for key in ("input_ids", "prompt_ids", "completion_ids") if key in inputs
                ]
                tried.append(sum(inputs[key].numel() for key in keys))
                loss = method(trainer, model, inputs, *rest, **more)
                if tried[-1] > most:
                    raise torch.OutOfMemoryError(OUT)
                return loss

            return compute

        for kind in (SFTTrainer, GRPOTrainer):
            monkeypatch.setattr(kind, "compute_loss", starved(kind.compute_loss))
        return tried

    return limit


def advised(pod: TrainerPod) -> dict[str, int]:
    """The keys that the hint sets, with their values."""
    found = re.findall(r"train\.(\w+) to (\d+)", pod.termination.hint)
    return {key: int(value) for key, value in found}


@pytest.mark.parametrize(
    ("algorithm", "most", "settings", "batch_size"),
    [
        ("sft", 150, {"max_steps": 2}, 2),
        ("sft", 60, {"max_steps": 2}, 1),
        ("grpo", 400, {"steps": 1, "batch_size": 4, "group_size": 4}, None),
    ],
)
def test_what_the_trainer_advises_after_a_gpu_ran_out_of_memory_fits(
    workshop: Workshop,
    limit_micro_batches: Callable[[int], list[int]],
    algorithm: str,
    most: int,
    settings: dict[str, Any],
    batch_size: int | None,
):
    tried = limit_micro_batches(most)
    pod = workshop.pod(resolved(algorithm, **settings))
    assert pod.train() == Exit.CUDA_OUT_OF_MEMORY
    message = pod.termination.message
    assert message.startswith(f"the GPU ran out of memory ({OUT}) in the gradient of ")
    assert re.search(r"; measured: \d+ sequences? of \d+ tokens fit$", message), message
    assert tried[0] > most >= tried[-1]

    changes = advised(pod)
    assert changes if algorithm == "grpo" else changes["batch_size"] == batch_size
    again = workshop.pod(resolved(algorithm, **{**settings, **changes}))
    assert again.train() == Exit.DONE, (pod.termination, again.termination)


def test_where_nothing_fits_the_hint_says_so(
    workshop: Workshop, limit_micro_batches: Callable[[int], list[int]]
):
    limit_micro_batches(1)
    pod = workshop.pod(resolved("sft", max_steps=1))
    assert pod.train() == Exit.CUDA_OUT_OF_MEMORY
    assert "measured" not in pod.termination.message
    assert "not even 32 tokens fit" in pod.termination.hint


def test_a_part_of_sequences_that_follow_one_another_in_one_row_is_whole_sequences():
    import torch

    from flashrun.api.records import Layout
    from flashrun_trainer.data.labels import TokenizedExample
    from flashrun_trainer.data.packing import row_tensors
    from flashrun_trainer.memory_probe import Part, size_of, take_part

    examples = [TokenizedExample([7] * length, [7] * length) for length in (3, 5, 4)]
    inputs = row_tensors(examples, Layout.FLAT, 8, 0)
    assert size_of(inputs) == Part(3, 5)
    wanted = row_tensors(examples[:2], Layout.FLAT, 8, 0)
    found = take_part(inputs, Part(2, 5))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(value)), name
