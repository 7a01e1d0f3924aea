"""Log-probabilities of completions whose prompts are computed once for their whole group.

TRL computes a prompt again for each completion of its group. Here, each different prompt is
computed once, except for its last token, and the keys and values of its layers keep the graph of
their gradients. Then the last token and the completion are computed behind a copy of them. Values
and gradients are those of whole rows but for rounding.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from peft import PeftModel
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from flashrun_trainer.completion_portions import compute_in_portions

_ATTENTION: Final = ("sdpa", "eager")
"""Implementations of attention that are known to read keys of another number than queries."""
_ROPE_BY_LENGTH: Final = ("dynamic", "longrope")
"""Kinds of rotary positions that depend on how many tokens are computed at once."""


def can_share(model: Any, width: int, completion_width: int) -> bool:
    """Return whether the prompts of rows of ``width`` tokens may be computed once for their group.

    What decides is the model and its config, and all of this must hold:

    - Its layers keep keys and values, and nothing else: full attention, or a sliding window that
      is not shorter than a row. States of linear attention, convolutions and recurrent layers are
      not kept for each token, and layers that share the keys of others have none.
    - It uses the common attention of transformers by ``sdpa`` or ``eager``, whose masks and
      positions go on behind what is kept.
    - Gradient checkpointing is off: it computes layers again, and keeps no keys for that.
    - Dropout is off: a group's completions would all lose the same parts of their prompt.
    - Its rotary positions are the same however many tokens are computed.
    - It reads nothing but text, and returns no loss of its routers.
    - A prompt has more than the one token that is computed with each completion.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    config = base.config
    settings = config.to_dict()
    return (
        width - completion_width > 1
        and base._supports_attention_backend
        and not base._is_stateful
        and config._attn_implementation in _ATTENTION
        and config.get_text_config() is config
        and not base.is_gradient_checkpointing
        and not settings.get("output_router_logits")
        and not settings.get("num_kv_shared_layers")
        and not any("drop" in name and value for name, value in settings.items())
        and not any(part.p for part in model.modules() if isinstance(part, torch.nn.Dropout))
        and not any(kind in _ROPE_BY_LENGTH for kind in _rope_kinds(settings))
        and all(_keeps_whole_rows(layer, width) for layer in DynamicCache(config=config).layers)
    )


def _rope_kinds(settings: dict[str, Any]) -> list[Any]:
    """Return the kinds of rotary positions, of the model or of each type of layer."""
    rope = settings.get("rope_parameters") or {}
    return [part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)]


def _keeps_whole_rows(layer: Any, width: int) -> bool:
    if type(layer) is DynamicSlidingWindowLayer:
        return int(layer.sliding_window) >= width
    return type(layer) is DynamicLayer


def compute_shared(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    completion_width: int,
    most: int,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return log-probabilities and entropies of all completion tokens (rows, completion_width).

    ``input_ids`` and ``attention_mask`` (rows, width) have prompts that are padded at their
    beginning, and completions that are padded at their end. ``model`` has TRL's fused head. The
    completions are computed in at most ``most`` portions; the values of padding are 0.
    """
    last = input_ids.shape[1] - completion_width - 1
    begin = int(attention_mask[:, :last].argmax(dim=1).min())
    prompts = SharedPrompts(model, input_ids[:, begin:last], attention_mask[:, begin:last])
    return compute_in_portions(
        lambda rows, ids, mask, _: prompts.compute(rows, ids, mask),
        input_ids[:, last:],
        attention_mask[:, last:],
        completion_width,
        most,
    )


def number_equal_rows(rows: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Return for each row the number of its kind, and for each kind its first row."""
    kinds: dict[tuple[int, ...], int] = {}
    numbers = [kinds.setdefault(tuple(row), len(kinds)) for row in rows]
    return numbers, [numbers.index(number) for number in range(len(kinds))]


class SharedPrompts:
    """The different prompts of a micro-batch, each computed once.

    ``input_ids`` and ``attention_mask`` (rows, width) are prompts without their last token, padded
    at their beginning; those of one group are equal.
    """

    def __init__(self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
        self._model = model
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        self._config = base.config
        self._mask = attention_mask
        rows = torch.cat((input_ids, attention_mask), dim=1).tolist()
        numbers, firsts = number_equal_rows(rows)
        self._numbers = torch.tensor(numbers, device=input_ids.device)
        """For each row, the number of its prompt."""
        self._kept = DynamicCache(config=self._config)
        # The layers without the head: nothing is predicted here.
        base.base_model(
            input_ids=input_ids[firsts],
            attention_mask=attention_mask[firsts],
            past_key_values=self._kept,
            use_cache=True,
        )

    def compute(
        self, rows: Sequence[int], input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log-probabilities and entropies (rows, width - 1) of completions.

        ``input_ids`` and ``attention_mask`` (rows, width) have the last token of a prompt and its
        completion, padded at its end; the values of padding are 0.
        """
        numbers = self._numbers[list(rows)]
        copy = DynamicCache(config=self._config)
        for index, layer in enumerate(self._kept.layers):
            copy.update(layer.keys[numbers], layer.values[numbers], index)
        mask = torch.cat((self._mask[list(rows)], attention_mask[:, :-1]), dim=1)
        outputs = self._model(
            input_ids=input_ids[:, :-1],
            attention_mask=mask,
            past_key_values=copy,
            shift_labels=input_ids[:, 1:].masked_fill(attention_mask[:, 1:] == 0, -100),
            fused_lm_head=True,  # of TRL, as its own computation of whole rows
        )
        return outputs.log_probs, outputs.entropy
