"""Sampling with transformers that computes nothing twice: a decoding loop for ``generate``.

``generate`` computes a prompt once for each completion of its group, and computes every row of a
batch until the last one has ended. Here, equal prompts are computed once, their keys and values are
copied, and completions that have ended leave the batch. Each token has the probability that it has
in transformers' own loop.
"""

from typing import Any, Final

import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from flashrun_trainer.shared_prompts import number_equal_rows

_ROWS_OF: Final = ("attention_mask", "position_ids")
"""Arguments of a model with one row per completion."""
_KNOWN: Final = frozenset({*_ROWS_OF, "past_key_values", "use_cache", "logits_to_keep"})
_LEAVING_SHARE: Final = 0.25
"""Share of a batch that has ended before it leaves: what stays is copied then."""


def sample_groups(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    sharded: bool = False,
    **arguments: Any,
) -> torch.Tensor:
    """Return ``input_ids`` (rows, width) with a completion of each row, padded at its end.

    It is an argument of ``generate``, ``custom_generate``, which prepares all others. The ranks of
    a ``sharded`` model compute every token together, until all completions of all ranks have ended;
    what they sample does not depend on it. A model that keeps anything but keys, values and states
    in its cache, or that is asked for more than tokens, is sampled by transformers' own loop.
    """
    if not _is_supported(generation_config, arguments):
        sampled: torch.Tensor = model._sample(
            input_ids,
            logits_processor,
            stopping_criteria,
            generation_config,
            synced_gpus=sharded,
            **arguments,
        )
        return sampled
    batch = _Batch(model, input_ids, arguments)
    logits = batch.read_prompts()
    pad = generation_config._pad_token_tensor
    with model._optimize_model_for_decode():
        while True:
            if batch.has_ended:  # other ranks have not
                batch.append(pad.expand(len(batch.ids), 1))
            else:
                scores = logits_processor(batch.ids, logits)
                if generation_config.do_sample:
                    drawn = torch.multinomial(scores.softmax(dim=-1), num_samples=1)
                else:
                    drawn = scores.argmax(dim=-1, keepdim=True)
                batch.append(drawn)
                batch.end(stopping_criteria(batch.ids, None))
            if not model._has_unfinished_sequences(batch.has_ended, sharded, input_ids.device):
                return batch.padded(pad)
            logits = batch.read_tokens()


def _is_supported(config: GenerationConfig, arguments: dict[str, Any]) -> bool:
    """Return whether the rows of everything that ``generate`` has prepared can be chosen."""
    positions = arguments.get("position_ids")
    return (
        arguments.keys() <= _KNOWN
        and type(arguments.get("past_key_values")) is DynamicCache
        and (positions is None or positions.dim() == 2)
        and not config.return_dict_in_generate
        and not config.prefill_chunk_size
        and config.num_beams == 1
    )


class _Batch:
    """The completions that are sampled together."""

    def __init__(self, model: Any, input_ids: torch.Tensor, arguments: dict[str, Any]) -> None:
        self._model = model
        self._arguments = arguments
        self.ids = input_ids
        """Tokens of the rows that are computed (rows, length)."""
        self._count = len(input_ids)
        self._places = list(range(self._count))
        """For each of these rows, its place among those that were asked for."""
        self._ended = torch.zeros(self._count, dtype=torch.bool, device=input_ids.device)
        self._whole: dict[int, torch.Tensor] = {}
        """The tokens of what has ended, by place."""

    @property
    def has_ended(self) -> bool:
        """Whether every completion has ended."""
        return len(self._whole) == self._count

    def read_prompts(self) -> torch.Tensor:
        """Compute each different prompt once; return the logits of each row's next token."""
        mask = self._arguments.get("attention_mask")
        rows = self.ids if mask is None else torch.cat((self.ids, mask), dim=1)
        numbers, own = number_equal_rows(rows.tolist())
        ids, self.ids = self.ids, self.ids[own]
        self._select_arguments(own)
        logits = self._forward(is_first_iteration=True)
        self.ids = ids
        self._select(numbers)
        return logits[numbers]

    def read_tokens(self) -> torch.Tensor:
        """Compute the newest token of each row; return the logits of the next ones."""
        return self._forward(next_sequence_length=1)

    def append(self, tokens: torch.Tensor) -> None:
        """Add a token (rows, 1) to each row."""
        self.ids = torch.cat((self.ids, tokens), dim=1)

    def end(self, ended: torch.Tensor) -> None:
        """End the rows that have ended now (rows), and let them leave when it is worth a copy."""
        for row in (ended & ~self._ended).nonzero().flatten().tolist():
            self._whole[self._places[row]] = self.ids[row]
        self._ended |= ended
        stay = (~self._ended).nonzero().flatten()
        if len(self.ids) - len(stay) < _LEAVING_SHARE * len(self.ids) or not len(stay):
            return
        self.ids, self._ended = self.ids[stay], self._ended[stay]
        rows = stay.tolist()
        self._places = [self._places[row] for row in rows]
        self._select(rows)

    def padded(self, pad: torch.Tensor) -> torch.Tensor:
        """Return the rows in the order in which they were asked for."""
        rows = [self._whole[place] for place in sorted(self._whole)]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad.item())

    def _forward(self, **kind: Any) -> torch.Tensor:
        inputs = self._model.prepare_inputs_for_generation(self.ids, **kind, **self._arguments)
        outputs = self._model(**inputs, return_dict=True)
        self._arguments = self._model._update_model_kwargs_for_generation(outputs, self._arguments)
        logits: torch.Tensor = outputs.logits[:, -1].to(copy=True, dtype=torch.float32)
        return logits

    def _select(self, rows: list[int]) -> None:
        """Keep these rows of the cache and of the arguments; a row can be kept several times."""
        self._arguments["past_key_values"].reorder_cache(torch.tensor(rows, device=self.ids.device))
        self._select_arguments(rows)

    def _select_arguments(self, rows: list[int]) -> None:
        for name in _ROWS_OF:
            if (value := self._arguments.get(name)) is not None:
                self._arguments[name] = value[rows]
