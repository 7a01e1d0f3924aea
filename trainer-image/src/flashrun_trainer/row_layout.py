"""How examples may share a row of a model without influencing each other.

A model's config shows which layouts come into question. Whether its masks really separate examples
is documented nowhere, so it is tried: two examples in a row, tokens of one are changed, and the
logits of the other one are compared.
"""

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from flashrun.api.trainer_choices import Layout
from flashrun_trainer.data.labels import TokenizedExample
from flashrun_trainer.data.packing import row_tensors
from flashrun_trainer.pod.distributed import ProcessGroup

log = logging.getLogger(__name__)

_ATTENTION: Final = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers in which the attention mask alone decides which tokens a token sees."""
_KERNELS: Final = ("fla", "causal_conv1d")
"""Packages with kernels that keep the states of several examples in a row apart."""
_PROBE_TOKENS: Final = (8, 160)
"""Tokens of both examples: a leak is largest in short ones, but only long ones show blocks."""
_TOLERANCE_FLOAT32: Final = 1e-5
"""Largest change of a token's logits that is rounding, relative to their spread.

Measured over 115 classes with random weights: at most 6e-7 without a leak, at least 6e-4 with one.
"""
_TOLERANCE_BFLOAT16: Final = 0.05


class LayoutChoice(NamedTuple):
    """The layout of a run's micro-batches."""

    layout: Layout
    reason: str = ""
    """Why examples do not share rows; empty if they do."""


def choose_layout(model: Any, process_group: ProcessGroup) -> LayoutChoice:
    """Return the layout with the least padding in which examples do not influence each other.

    All ranks must call this together, and all get the same answer.
    """
    import torch

    choice = _layout_by_config(model)
    if choice.layout is Layout.PADDED:
        return choice
    name = type(model).__name__
    try:
        if torch.cuda.is_available():
            model.to(torch.cuda.current_device())  # TRL would move it later
        leaks, failed = influences_neighbour(model, choice.layout), ""
    except Exception as error:  # whatever the model raises, padded rows work
        log.warning("examples in a row could not be tried", exc_info=True)
        leaks, failed = False, type(error).__name__
    leaks, any_failed = process_group.any_rank(leaks, bool(failed))
    if leaks:
        reason = f"in {name}, an example changes what the model computes for its neighbour in a row"
        return LayoutChoice(Layout.PADDED, reason)
    if any_failed:
        reason = f"{name} did not compute two examples in a row ({failed or 'on another GPU'})"
        return LayoutChoice(Layout.PADDED, reason)
    return choice


def _layout_by_config(model: Any) -> LayoutChoice:
    """Return the layout that the model's layers and attention allow if they work as they should.

    PyTorch's attention separates examples by masks, FlashAttention by sequence boundaries. A layer
    that carries a state from token to token needs kernels that know the boundaries.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or _ATTENTION)
    flash = "flash" in str(config._attn_implementation)
    has_state = model._is_stateful or bool(kinds - _ATTENTION)
    if has_state and not (flash and _has_state_kernels()):
        return LayoutChoice(
            Layout.PADDED,
            f"layers of {type(model).__name__} carry a state from token to token, and no kernels "
            "that know where an example ends are in use",
        )
    return LayoutChoice(Layout.FLAT if flash else Layout.ROWS)


def _has_state_kernels() -> bool:
    return all(importlib.util.find_spec(name) for name in _KERNELS)


def influences_neighbour(model: Any, layout: Layout) -> bool:
    """Return whether an example changes the logits of another one in the same row.

    Each of the two is changed once, the first one also in a single token.
    """
    for length in _PROBE_TOKENS:
        first, second, third = (_token_ids(model, length, start) for start in range(3))
        single = [*first[: length // 2], second[0], *first[length // 2 + 1 :]]
        before = _logits(model, layout, [first, second])
        changes = (
            (_logits(model, layout, [single, second]), slice(length, None)),
            (_logits(model, layout, [third, second]), slice(length, None)),
            (_logits(model, layout, [first, third]), slice(None, length)),
        )
        for after, unchanged in changes:
            if _differ(before[unchanged], after[unchanged], model.dtype):
                return True
    return False


def _token_ids(model: Any, length: int, start: int) -> list[int]:
    """Return tokens from the middle of the vocabulary, where no special tokens are."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    middle, size = vocabulary // 4, max(vocabulary // 2, 1)
    return [middle + (start * 31 + index * 7) % size for index in range(length)]


def _logits(model: Any, layout: Layout, examples: Sequence[list[int]]) -> Any:
    """Return the logits of all tokens of the row (tokens, vocabulary)."""
    import torch

    tokenized = [TokenizedExample(ids, ids) for ids in examples]
    inputs = row_tensors(tokenized, layout, sum(map(len, examples)), pad_token_id=0)
    inputs.pop("labels")
    device = model.get_input_embeddings().weight.device
    moved = {
        name: value.to(device) if torch.is_tensor(value) else value
        for name, value in inputs.items()
    }
    with torch.no_grad(), _evaluating(model):
        return model(**moved, use_cache=False).logits[0].float()


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    yield
    model.train(training)


def _differ(before: Any, after: Any, dtype: Any) -> bool:
    """Return whether the logits of any token differ by more than rounding.

    Rounding errors occur in mixtures of experts: how many tokens an expert gets decides in which
    order its kernels add.
    """
    import torch

    tolerance = _TOLERANCE_FLOAT32 if dtype == torch.float32 else _TOLERANCE_BFLOAT16
    spread = (before - before.mean(dim=-1, keepdim=True)).norm(dim=-1)
    change = (before - after).norm(dim=-1)
    return bool((~(change <= tolerance * spread)).any())
