"""A checkpoint on the pod's disk: all that a resume needs, as of the end of the last whole step.

A checkpoint can be written while another thread already computes the next step. Nothing here waits
for other ranks, draws random numbers, or reads what changes before the next optimizer step.
"""

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy
import torch
from transformers import TrainerState

RandomState = Mapping[str, Any]
"""The state of all random number generators of a process, by the names that transformers uses."""


@dataclass(frozen=True)
class WholeStep:
    """What a step leaves behind that does not stay as it is until the next optimizer step."""

    step: int
    input_tokens: int
    """TRL's count of the tokens of all steps."""
    random_states: tuple[RandomState, ...]
    """One per rank."""


@dataclass(frozen=True)
class TrainingObjects:
    """The objects of TRL's loop whose content goes into a checkpoint."""

    model: Any
    optimizer: Any
    scheduler: Any
    state: TrainerState

    @classmethod
    def from_callback(cls, state: TrainerState, arguments: Mapping[str, Any]) -> Self:
        """Return the objects that TRL passes to a callback."""
        return cls(
            arguments.get("model"),
            arguments.get("optimizer"),
            arguments.get("lr_scheduler"),
            state,
        )

    def weights_are_finite(self) -> bool:
        """Return whether all weights of the adapter are finite."""
        with _own_stream():
            return all(bool(w.isfinite().all()) for w in _adapter_weights(self.model).values())


def capture_random_state(world_size: int) -> RandomState:
    """Return the random state of this process, once the GPU has finished the step."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        torch.cuda.current_stream().synchronize()
        # As transformers restores it.
        several = world_size > 1
        state["cuda"] = torch.cuda.get_rng_state_all() if several else torch.cuda.get_rng_state()
    return state


def write_checkpoint(folder: Path, objects: TrainingObjects, whole: WholeStep) -> None:
    """Write the files from which transformers resumes after ``whole``."""
    with _own_stream():
        save_adapter(objects.model, folder)
        torch.save(objects.optimizer.state_dict(), folder / "optimizer.pt")
        torch.save(objects.scheduler.state_dict(), folder / "scheduler.pt")
    ranks = len(whole.random_states)
    for rank, random_state in enumerate(whole.random_states):
        name = "rng_state.pth" if ranks == 1 else f"rng_state_{rank}.pth"
        torch.save(random_state, folder / name)
    state = copy.copy(objects.state)
    state.num_input_tokens_seen = whole.input_tokens
    state.log_history = state.log_history[-1:]  # the run's metrics are in storage
    state.save_to_json(str(folder / "trainer_state.json"))


def save_adapter(model: Any, folder: Path) -> None:
    """Write the trained adapter, without reading the base model, which may be in use."""
    weights = _adapter_weights(model)
    model.save_pretrained(str(folder), state_dict=weights, selected_adapters=["default"])


def _adapter_weights(model: Any) -> dict[str, Any]:
    return {name: weight for name, weight in model.named_parameters() if "lora_" in name}


@contextmanager
def _own_stream() -> Iterator[None]:
    """Copy from the GPU without waiting for what another thread computes there."""
    if not torch.cuda.is_available():
        yield
        return
    with torch.cuda.stream(torch.cuda.Stream()):
        yield
