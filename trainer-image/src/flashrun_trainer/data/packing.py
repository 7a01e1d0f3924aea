"""The data of SFT: which examples each optimizer step learns, and how they form micro-batches.

A step learns ``batch_size`` rows of the dataset, on any number of GPUs, and their order depends on
the seed alone. A row is one example, or several where a template renders history differently for
each of its turns; these are learned in the same step. Packing happens inside a step, so it changes
how much is computed but not what is learned. Each step has the same number of micro-batches,
because TRL's loop counts them.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate, count, pairwise
from typing import Any, Final, overload

from typing_extensions import override

from flashrun.api.bounds import SENTENCE_LIMIT
from flashrun.api.records import Batching, ResolvedRun
from flashrun.api.trainer_choices import Layout

IGNORE_INDEX: Final = -100
"""Label of a token that is not learned; PyTorch's cross-entropy ignores it."""
_CHECKED_STEPS: Final = 20_000
"""Steps whose micro-batches are measured; of a longer run, the rest is assumed to be similar."""
_MORE_ROWS: Final = 2
"""Rows above the fewest possible that are tried, for less padding."""
_DESCRIBED_STEPS: Final = 100
"""Steps whose share of padding is measured for the log."""


class BatchSampler(Sequence[list[int]]):
    """The rows of every optimizer step: each epoch has all rows, in a new order.

    The order of an epoch is computed when it is needed, and depends on the seed alone.
    """

    def __init__(self, run: ResolvedRun, rows: int) -> None:
        self._seed, self._batch_size, self._rows = run.seed, run.train.batch_size, rows
        self.steps_per_epoch = -(-rows // self._batch_size)
        steps = self.steps_per_epoch * (run.train.epochs or 1)
        self._steps = min(steps, run.train.max_steps or steps)
        self.epoch = lru_cache(maxsize=2)(self._epoch)

    def _epoch(self, epoch: int) -> list[list[int]]:
        order = random.Random(f"{self._seed}/{epoch}").sample(range(self._rows), self._rows)
        size = self._batch_size
        return [order[begin : begin + size] for begin in range(0, len(order), size)]

    def __len__(self) -> int:
        return self._steps

    def epochs_until(self, step: int) -> float:
        """Return how many epochs the first ``step`` steps are."""
        return step / self.steps_per_epoch

    @overload
    def __getitem__(self, step: int) -> list[int]: ...

    @overload
    def __getitem__(self, step: slice) -> list[list[int]]: ...

    @override
    def __getitem__(self, step: int | slice) -> list[int] | list[list[int]]:
        if isinstance(step, slice):
            return [self[index] for index in range(*step.indices(self._steps))]
        if not 0 <= step < self._steps:
            raise IndexError(step)
        epoch, index = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[index]


@dataclass(frozen=True)
class PackingPlan:
    """The micro-batches of a run. The examples in one are computed when they are needed."""

    layout: Layout
    layout_reason: str
    """Why examples do not share rows; empty if they do."""
    max_length: int
    """Most tokens of a row with several examples."""
    gradient_accumulation_steps: int
    """Micro-batches of one process before the optimizer steps."""
    world_size: int
    lengths: Sequence[int]
    """Tokens of every example."""
    rows: Sequence[Sequence[int]]
    """The examples of every row."""
    batches: BatchSampler
    """Rows of every step."""

    @property
    def micro_batches_per_step(self) -> int:
        """Micro-batches of one step, over all processes."""
        return self.gradient_accumulation_steps * self.world_size

    @property
    def batching(self) -> Batching:
        """How a step is divided, for the run's status; the micro-batch size is a mean."""
        return Batching(
            world_size=self.world_size,
            micro_batch_size=-(-len(self.examples(0)) // self.micro_batches_per_step),
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            layout=self.layout,
            layout_reason=self.layout_reason[:SENTENCE_LIMIT],
        )

    def examples(self, step: int) -> list[int]:
        """Return the examples of a step."""
        return [example for row in self.batches[step] for example in self.rows[row]]

    def micro_batches(self, step: int) -> list[list[int]]:
        """Return the examples of each micro-batch of a step.

        The order is that in which TRL takes them: rank by rank within each accumulation step.
        """
        return _assign(self.examples(step), self.micro_batches_per_step, self.lengths, self.layout)

    def tokens_until(self, step: int) -> int:
        """Return the tokens of the first ``step`` steps, without padding."""
        epochs, steps = divmod(step, self.batches.steps_per_epoch)
        return epochs * self._cumulated_tokens(0)[-1] + self._cumulated_tokens(epochs)[steps]

    @cached_property
    def _cumulated_tokens(self) -> Callable[[int], list[int]]:
        """Returns for an epoch the tokens of its first 0, 1, 2… steps."""
        row_tokens = [sum(self.lengths[example] for example in row) for row in self.rows]

        @lru_cache(maxsize=2)
        def cumulated_tokens(epoch: int) -> list[int]:
            steps = self.batches.epoch(epoch)
            tokens = (sum(row_tokens[row] for row in step) for step in steps)
            return list(accumulate(tokens, initial=0))

        return cumulated_tokens


def make_plan(
    run: ResolvedRun,
    lengths: Sequence[int],
    layout: Layout,
    most_tokens: int | None = None,
    world_size: int = 1,
    rows: Sequence[Sequence[int]] | None = None,
    layout_reason: str = "",
) -> PackingPlan:
    """Return the plan with the fewest micro-batches of at most ``most_tokens`` tokens each.

    None means no limit. An example that is longer than the limit is a micro-batch by itself.
    ``rows`` are the examples of each row of the dataset; by default, every example is a row.
    """
    rows = [[example] for example in range(len(lengths))] if rows is None else rows
    batches = BatchSampler(run, len(rows))
    plan = PackingPlan(
        layout, layout_reason, run.train.max_length, 1, world_size, lengths, rows, batches
    )
    if most_tokens is None:
        return plan

    def fits(micro_batch: Sequence[int]) -> bool:
        tokens = [lengths[example] for example in micro_batch]
        return (
            len(micro_batch) <= 1 or computed_tokens(tokens, layout, plan.max_length) <= most_tokens
        )

    checked = min(len(batches), _CHECKED_STEPS)
    plans = (replace(plan, gradient_accumulation_steps=steps) for steps in count(1))
    return next(
        plan
        for plan in plans
        if all(fits(part) for step in range(checked) for part in plan.micro_batches(step))
    )


def computed_tokens(lengths: Sequence[int], layout: Layout, max_length: int) -> int:
    """Return how many tokens a micro-batch of these examples computes, padding included."""
    rows = [sum(lengths[index] for index in row) for row in pack_rows(lengths, layout, max_length)]
    return len(rows) * max(rows, default=0)


def _assign(
    examples: Sequence[int], micro_batches: int, lengths: Sequence[int], layout: Layout
) -> list[list[int]]:
    """Assign the examples of a step to its micro-batches.

    Padded rows: equal numbers of examples of similar length, for little padding. Otherwise: equal
    numbers of tokens, by giving the longest remaining example to the smallest micro-batch.
    """
    longest_first = sorted(examples, key=lambda example: -lengths[example])
    if layout is Layout.PADDED:
        bounds = [len(examples) * index // micro_batches for index in range(micro_batches + 1)]
        return [longest_first[begin:end] for begin, end in pairwise(bounds)]
    return _divide_evenly(longest_first, micro_batches, lengths)


def _divide_evenly(
    longest_first: Sequence[int], parts: int, lengths: Sequence[int]
) -> list[list[int]]:
    """Divide examples into parts of about equal numbers of tokens."""
    divided: list[list[int]] = [[] for _ in range(parts)]
    smallest_first = [(0, index) for index in range(parts)]
    for example in longest_first:
        tokens, index = heapq.heappop(smallest_first)
        divided[index].append(example)
        heapq.heappush(smallest_first, (tokens + lengths[example], index))
    return divided


def pack_rows(lengths: Sequence[int], layout: Layout, max_length: int) -> list[list[int]]:
    """Return the rows of one micro-batch, as positions in ``lengths``."""
    if layout is Layout.PADDED:
        return [[index] for index in range(len(lengths))]
    if layout is Layout.FLAT:
        return [list(range(len(lengths)))]
    longest_first = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    fullest = _fill_rows(longest_first, lengths, max_length)
    # Every row is padded to the longest: rows of equal length have less padding than full ones.
    most = min(len(fullest) + _MORE_ROWS, len(lengths))
    even = [
        _divide_evenly(longest_first, number, lengths) for number in range(len(fullest), most + 1)
    ]

    def longest(rows: list[list[int]]) -> int:
        return max((sum(lengths[index] for index in row) for row in rows), default=0)

    fitting = [rows for rows in even if longest(rows) <= max_length]
    return min([fullest, *fitting], key=lambda rows: len(rows) * longest(rows))


def _fill_rows(
    longest_first: Sequence[int], lengths: Sequence[int], max_length: int
) -> list[list[int]]:
    """Return few rows of at most ``max_length`` tokens.

    Best fit decreasing: each example, longest first, goes into the fullest row with enough room.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in longest_first:
        open_rows = [row for row, left in enumerate(room) if left >= lengths[index]]
        if open_rows:
            row = min(open_rows, key=lambda row: room[row])
            rows[row].append(index)
            room[row] -= lengths[index]
        else:
            rows.append([index])
            room.append(max_length - lengths[index])
    return rows


_LAYOUTS: Final = {
    Layout.PADDED: "each example is padded to the longest",
    Layout.ROWS: "several examples share a row",
    Layout.FLAT: "all examples of a micro-batch share a row",
}


def describe(plan: PackingPlan) -> str:
    """Return one sentence for the log: the size of the run, and its share of padding."""
    steps = range(min(len(plan.batches), _DESCRIBED_STEPS))
    computed = sum(
        computed_tokens([plan.lengths[index] for index in part], plan.layout, plan.max_length)
        for step in steps
        for part in plan.micro_batches(step)
    )
    padding = 1 - plan.tokens_until(len(steps)) / max(computed, 1)
    examples, rows, parts = len(plan.lengths), len(plan.rows), plan.micro_batches_per_step
    return (
        f"{examples} examples{f' of {rows} rows' if rows != examples else ''}, "
        f"{len(plan.batches)} steps of {parts} micro-batch{'' if parts == 1 else 'es'} each; "
        f"{_LAYOUTS[plan.layout]}, and {padding:.0%} of computed tokens are padding"
        + (f"; {plan.layout_reason}" if plan.layout_reason else "")
    )


@dataclass(frozen=True)
class Collator:
    """Makes the tensors of one micro-batch; the data loader's items are micro-batch numbers."""

    plan: PackingPlan
    examples: Sequence[Any]
    """All examples, with ``input_ids`` and ``labels``."""
    pad_token_id: int

    def __call__(self, items: Sequence[dict[str, int]]) -> dict[str, Any]:
        """Return the model's inputs for one micro-batch."""
        (item,) = items
        step, index = divmod(item["micro_batch"], self.plan.micro_batches_per_step)
        return self.tensors([self.examples[i] for i in self.plan.micro_batches(step)[index]])

    def tensors(self, examples: Sequence[Any]) -> dict[str, Any]:
        """Return examples as tensors (rows, longest row); no examples give a row without labels."""
        return row_tensors(examples, self.plan.layout, self.plan.max_length, self.pad_token_id)


def row_tensors(
    examples: Sequence[Any], layout: Layout, max_length: int, pad_token_id: int
) -> dict[str, Any]:
    """Return examples as tensors (rows, longest row); no examples give a row without labels.

    The last step of an epoch may have fewer examples than micro-batches.
    """
    import torch

    ids = [list(example.input_ids) for example in examples] or [[pad_token_id] * 2]
    # The loss shifts labels by one. The first token of an example would be predicted from the
    # last token of the example before it in the row, so it gets no label.
    labels = [[IGNORE_INDEX, *example.labels[1:]] for example in examples] or [[IGNORE_INDEX] * 2]
    rows = pack_rows([len(tokens) for tokens in ids], layout, max_length)
    longest = max(sum(len(ids[index]) for index in row) for row in rows)

    def tensor(values: list[list[int]], padding: int) -> Any:
        """Return one value per token of every row, padded to the longest row."""
        joined = [[value for index in row for value in values[index]] for row in rows]
        return torch.tensor([row + [padding] * (longest - len(row)) for row in joined])

    batch = {"input_ids": tensor(ids, pad_token_id), "labels": tensor(labels, IGNORE_INDEX)}
    if layout is Layout.PADDED:
        return batch | {"attention_mask": tensor([[1] * len(tokens) for tokens in ids], 0)}
    # transformers recognizes examples by positions that restart at 0; with an attention mask
    # it would not look at the positions.
    batch["position_ids"] = tensor([list(range(len(tokens))) for tokens in ids], 0)
    return batch | (_boundaries(ids) if layout is Layout.FLAT else {})


def _boundaries(ids: list[list[int]]) -> dict[str, Any]:
    """Return where examples begin and end, in the form of the kernels for several lengths.

    ``cu_seq_lens`` are the arguments of FlashAttention, ``seq_idx`` is that of causal-conv1d.
    """
    import torch

    lengths = torch.tensor([len(tokens) for tokens in ids])
    ends = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    longest = int(lengths.max())
    return {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
        "seq_idx": torch.repeat_interleave(torch.arange(len(ids)), lengths).to(torch.int32)[None],
    }
