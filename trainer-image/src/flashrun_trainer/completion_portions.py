"""Log-probabilities of completions that differ in length, computed with little padding.

TRL computes all rows of a micro-batch at the width of the longest prompt and the longest completion
of the whole step. Here, rows of similar length are computed together, and cut to their own longest.
Rows without a learned token are not computed for the loss. What is learned is the same: the loss is
still that of the whole micro-batch.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

import torch

MOST_PORTIONS: Final = 4
"""Most portions of a micro-batch. Each is computed by itself, which costs a GPU time."""
_FEWEST_ROWS: Final = 2
"""Fewest rows for which a portion is worth its own computation."""
_WORTHWHILE: Final = 0.9
"""Share of the tokens of one portion that several must not exceed."""


def rows_to_compute(
    attention_mask: torch.Tensor, learned: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the numbers of the rows whose values the loss needs: all of them, or the learned ones.

    Without a learned row it is the one with the fewest tokens: a loss needs a graph, and the ranks
    of a sharded model compute together.
    """
    if learned is None:
        return torch.arange(len(attention_mask), device=attention_mask.device)
    rows = learned.nonzero().flatten()
    return rows if len(rows) else attention_mask.sum(dim=1).argmin().unsqueeze(0)


def among_all_rows(values: torch.Tensor, rows: torch.Tensor, number: int) -> torch.Tensor:
    """Return values (number, width) with those of ``rows`` (rows, width), and 0 in all others."""
    return values.new_zeros(number, values.shape[1]).index_copy(0, rows, values)


def portions(ends: Sequence[int], most: int) -> list[list[int]]:
    """Return the rows of each portion: at most ``most`` of them, shortest completions first."""
    shortest_first = sorted(range(len(ends)), key=lambda row: ends[row])
    number = max(1, min(most, len(ends) // _FEWEST_ROWS))
    bounds = [len(ends) * index // number for index in range(number + 1)]
    return [shortest_first[begin:end] for begin, end in pairwise(bounds)]


def compute_in_portions(
    compute: Callable[[Sequence[int], torch.Tensor, torch.Tensor, int], tuple[Any, Any]],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    completion_width: int,
    most: int,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return log-probabilities and entropies of all completion tokens (rows, completion_width).

    ``compute`` returns them for some rows, from their numbers, their token ids and mask, and the
    number of columns that are completions. Prompts are padded at their beginning, completions at
    their end; the values of padding are 0.
    """
    width = input_ids.shape[1]
    prompt_width = width - completion_width
    ends = (width - attention_mask.flip(1).argmax(dim=1)).clamp(min=prompt_width + 1).tolist()
    # The first token of a completion is predicted from the column before it, also without a prompt.
    begins = attention_mask.argmax(dim=1).clamp(max=max(prompt_width - 1, 0)).tolist()

    def columns_of(rows: Sequence[int]) -> slice:
        return slice(min(begins[row] for row in rows), max(ends[row] for row in rows))

    def computed_tokens(parts: Sequence[Sequence[int]]) -> int:
        spans = [(len(rows), columns_of(rows)) for rows in parts]
        return sum(count * (columns.stop - columns.start) for count, columns in spans)

    one, several = portions(ends, 1), portions(ends, most)
    if computed_tokens(several) > _WORTHWHILE * computed_tokens(one):
        several = one
    order: list[int] = []
    values: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for rows in several:
        columns = columns_of(rows)
        chosen = input_ids[rows, columns], attention_mask[rows, columns]
        missing = width - columns.stop
        computed = compute(rows, *chosen, completion_width - missing)
        for found, value in zip(values, computed, strict=True):
            if value is not None:
                found.append(torch.nn.functional.pad(value, (0, missing)))
        order += rows
    places = torch.tensor(order, device=input_ids.device).argsort()
    logps, entropies = (torch.cat(found)[places] if found else None for found in values)
    if logps is None:
        raise ValueError("a micro-batch without rows has no log-probabilities")
    return logps, entropies
