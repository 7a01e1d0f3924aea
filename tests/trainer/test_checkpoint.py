"""What lies in a checkpoint on the pod's disk: the last whole step, and nothing of the next one."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


@pytest.fixture
def objects(tiny_model: Path) -> Any:
    """A model with an adapter, and what trains it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, TrainerState

    from flashrun_trainer.checkpoint import TrainingObjects

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    return TrainingObjects(model, optimizer, scheduler, TrainerState(global_step=3))


def test_random_numbers_continue_where_the_step_ended(objects: Any, tmp_path: Path):
    import numpy
    import torch

    from flashrun_trainer.checkpoint import WholeStep, capture_random_state, write_checkpoint

    def draw() -> list[float]:
        return [random.random(), numpy.random.random(), float(torch.rand(()))]

    whole = WholeStep(3, 700, (capture_random_state(1),))
    expected = draw()
    objects.state.num_input_tokens_seen = 900  # the next step has begun
    write_checkpoint(tmp_path, objects, whole)
    draw()

    numpy_types = [numpy._core.multiarray._reconstruct, numpy.ndarray, numpy.dtype]
    with torch.serialization.safe_globals([*numpy_types, type(numpy.dtype(numpy.uint32))]):
        saved = torch.load(tmp_path / "rng_state.pth", weights_only=True)
    random.setstate(saved["python"])
    numpy.random.set_state(saved["numpy"])
    torch.random.set_rng_state(saved["cpu"])
    assert draw() == expected
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert (state["global_step"], state["num_input_tokens_seen"]) == (3, 700)
    assert objects.state.num_input_tokens_seen == 900


def test_every_rank_finds_its_own_random_state(objects: Any, tmp_path: Path):
    import torch

    from flashrun_trainer.checkpoint import WholeStep, write_checkpoint

    write_checkpoint(tmp_path, objects, WholeStep(3, 0, ({"cpu": 10}, {"cpu": 11})))
    saved = [torch.load(tmp_path / f"rng_state_{rank}.pth")["cpu"] for rank in (0, 1)]
    assert saved == [10, 11]


def test_the_adapter_is_saved_without_reading_the_base_model(
    objects: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    from flashrun_trainer.checkpoint import save_adapter

    expected = get_peft_model_state_dict(objects.model)

    def in_use(*_: Any, **__: Any) -> Any:
        raise AssertionError("another thread may compute with the base model")

    monkeypatch.setattr(torch.nn.Module, "state_dict", in_use)
    save_adapter(objects.model, tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in saved)


def test_weights_are_finite_or_not(objects: Any):
    import torch

    assert objects.weights_are_finite()
    with torch.no_grad():
        next(w for n, w in objects.model.named_parameters() if "lora_B" in n)[0, 0] = torch.nan
    assert not objects.weights_are_finite()


def test_the_state_of_a_long_run_is_as_short_as_that_of_a_short_one(objects: Any, tmp_path: Path):
    from flashrun_trainer.checkpoint import WholeStep, write_checkpoint

    def state_bytes(steps: int) -> int:
        folder = tmp_path / str(steps)
        folder.mkdir()
        logged = {f"metric/{number}": 1.0 for number in range(40)}
        objects.state.log_history = [{**logged, "step": step} for step in range(steps)]
        write_checkpoint(folder, objects, WholeStep(3, 0, ({},)))
        return (folder / "trainer_state.json").stat().st_size

    assert abs(state_bytes(10_000) - state_bytes(1)) < 100
