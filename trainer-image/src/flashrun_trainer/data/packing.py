"""SFT's data: which examples every optimizer step learns, and how they fill its passes.

A step learns ``batch_size`` examples, whatever it runs on: the order of the examples depends on the
seed alone. Packing happens within a step, so that it changes how much is computed and not what is
learned. A step is cut into the same number of passes every time, because TRL's loop counts them.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from itertools import accumulate, count, pairwise
from typing import Any, Final, overload

from typing_extensions import override

from flashrun.api.records import ResolvedRun

IGNORED: Final = -100
"""Label of a token that is not learned."""


_CHECKED_STEPS: Final = 20_000
"""Steps whose passes are measured; of a longer run, the rest is taken to be like them."""


class Layout(StrEnum):
    """How the examples of one pass lie in its tensors."""

    PADDED = "padded"
    """One example a row, filled up to the longest: for layers that would mix what shares a row."""
    ROWS = "rows"
    """Examples share rows of at most ``max_length``; attention masks keep them apart."""
    FLAT = "flat"
    """All examples in one row; kernels for sequences of several lengths keep them apart."""


class Steps(Sequence[list[int]]):
    """The examples of every optimizer step: each epoch has all of them, in a new order.

    An order is made when it is asked for, and depends on the seed alone.
    """

    def __init__(self, run: ResolvedRun, examples: int) -> None:
        self._seed, self._size, self._examples = run.seed, run.train.batch_size, examples
        self.of_an_epoch = -(-examples // self._size)
        wanted = self.of_an_epoch * (run.train.epochs or 1)
        self._count = min(wanted, run.train.max_steps or wanted)
        self.epoch = lru_cache(maxsize=2)(self._epoch)

    def _epoch(self, epoch: int) -> list[list[int]]:
        order = random.Random(f"{self._seed}/{epoch}").sample(range(self._examples), self._examples)
        return [order[begin : begin + self._size] for begin in range(0, len(order), self._size)]

    def __len__(self) -> int:
        return self._count

    def epochs_until(self, step: int) -> float:
        """Return how often the first ``step`` steps go through all examples."""
        return step / self.of_an_epoch

    @overload
    def __getitem__(self, step: int) -> list[int]: ...

    @overload
    def __getitem__(self, step: slice) -> list[list[int]]: ...

    @override
    def __getitem__(self, step: int | slice) -> list[int] | list[list[int]]:
        if isinstance(step, slice):
            return [self[index] for index in range(*step.indices(self._count))]
        if not 0 <= step < self._count:
            raise IndexError(step)
        epoch, index = divmod(step, self.of_an_epoch)
        return self.epoch(epoch)[index]


@dataclass(frozen=True)
class Plan:
    """Every pass of a run; which examples are in one is worked out when it is read."""

    layout: Layout
    width: int
    """Longest row, where examples share rows."""
    passes: int
    """Passes of one process before the optimizer steps."""
    world_size: int
    lengths: Sequence[int]
    """Tokens of every example."""
    steps: "Steps"

    @property
    def size(self) -> int:
        """Passes of one step, over all processes."""
        return self.passes * self.world_size

    @property
    def at_once(self) -> int:
        """Examples of one pass, on average, of a whole step."""
        return -(-len(self.steps[0]) // self.size)

    def shares(self, step: int) -> list[list[int]]:
        """Return the examples of every pass of a step: pass by pass, process by process."""
        return _dealt(self.steps[step], self.size, self.lengths, self.layout)

    def tokens_until(self, step: int) -> int:
        """Return the tokens of the first ``step`` steps, without filling."""
        epochs, steps = divmod(step, self.steps.of_an_epoch)
        return epochs * self._sums(0)[-1] + self._sums(epochs)[steps]

    @cached_property
    def _sums(self) -> Callable[[int], list[int]]:
        """The tokens of the first 0, 1, 2… steps of an epoch."""

        @lru_cache(maxsize=2)
        def of(epoch: int) -> list[int]:
            steps = self.steps.epoch(epoch)
            sums = (sum(self.lengths[example] for example in step) for step in steps)
            return list(accumulate(sums, initial=0))

        return of


def plan(
    run: ResolvedRun,
    lengths: Sequence[int],
    layout: Layout,
    most_tokens: int | None = None,
    world_size: int = 1,
) -> Plan:
    """Cut every step into as few passes as keep each within ``most_tokens``; None is no limit.

    A single example that is longer than that goes through alone.
    """
    found = Plan(layout, run.train.max_length, 1, world_size, lengths, Steps(run, len(lengths)))
    if most_tokens is None:
        return found

    def fits(share: Sequence[int]) -> bool:
        wanted = [lengths[example] for example in share]
        return len(share) <= 1 or computed(wanted, layout, found.width) <= most_tokens

    checked = min(len(found.steps), _CHECKED_STEPS)
    plans = (replace(found, passes=passes) for passes in count(1))
    return next(
        plan
        for plan in plans
        if all(fits(share) for step in range(checked) for share in plan.shares(step))
    )


def computed(lengths: Sequence[int], layout: Layout, width: int) -> int:
    """Return how many tokens a pass computes, filling included."""
    rows = [sum(lengths[index] for index in row) for row in arranged(lengths, layout, width)]
    return len(rows) * max(rows, default=0)


def _dealt(
    step: Sequence[int], hands: int, lengths: Sequence[int], layout: Layout
) -> list[list[int]]:
    """Deal a step out: by equal numbers of like length where rows are padded, else by tokens."""
    longest_first = sorted(step, key=lambda example: -lengths[example])
    if layout is Layout.PADDED:
        bounds = [len(step) * hand // hands for hand in range(hands + 1)]
        return [longest_first[begin:end] for begin, end in pairwise(bounds)]
    shares: list[list[int]] = [[] for _ in range(hands)]
    loads = [(0, hand) for hand in range(hands)]
    for example in longest_first:
        load, hand = heapq.heappop(loads)
        shares[hand].append(example)
        heapq.heappush(loads, (load + lengths[example], hand))
    return shares


def arranged(lengths: Sequence[int], layout: Layout, width: int) -> list[list[int]]:
    """Return the rows of one pass, as positions in ``lengths``."""
    if layout is Layout.PADDED:
        return [[index] for index in range(len(lengths))]
    if layout is Layout.FLAT:
        return [list(range(len(lengths)))]
    rows: list[list[int]] = []
    room: list[int] = []
    # Best fit, longest first: into the fullest row that still has room.
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        open_rows = [row for row, left in enumerate(room) if left >= lengths[index]]
        if open_rows:
            row = min(open_rows, key=lambda row: room[row])
            rows[row].append(index)
            room[row] -= lengths[index]
        else:
            rows.append([index])
            room.append(width - lengths[index])
    return rows


def said(plan: Plan) -> str:
    """Return in one sentence what the steps are, and how much of their work is filling."""
    some = range(min(len(plan.steps), 100))
    done = sum(
        computed([plan.lengths[example] for example in share], plan.layout, plan.width)
        for step in some
        for share in plan.shares(step)
    )
    filling = 1 - plan.tokens_until(len(some)) / max(done, 1)
    return (
        f"{len(plan.lengths)} examples, {len(plan.steps)} steps of {plan.size} passes, layout "
        f"{plan.layout}: {filling:.0%} of what is computed is filling"
    )


@dataclass(frozen=True)
class Collator:
    """Makes tensors of one pass; the items that it gets are the numbers of passes."""

    plan: Plan
    rows: Sequence[Any]
    """All examples, with ``input_ids`` and ``labels``."""
    filler: int
    """Token that fills up rows."""

    def __call__(self, items: Sequence[dict[str, int]]) -> dict[str, Any]:
        """Return what the model takes; of a pass without examples, one that teaches nothing."""
        (item,) = items
        step, share = divmod(item["pass"], self.plan.size)
        return self.tensors([self.rows[example] for example in self.plan.shares(step)[share]])

    def tensors(self, taken: Sequence[Any]) -> dict[str, Any]:
        """Return these rows as tensors."""
        import torch

        ids = [list(row.input_ids) for row in taken] or [[self.filler] * 2]
        labels = [[IGNORED, *row.labels[1:]] for row in taken] or [[IGNORED] * 2]
        rows = arranged([len(tokens) for tokens in ids], self.plan.layout, self.plan.width)
        longest = max(sum(len(ids[index]) for index in row) for row in rows)

        def tensor(parts: list[list[int]], filler: int) -> Any:
            lines = [[token for index in row for token in parts[index]] for row in rows]
            return torch.tensor([line + [filler] * (longest - len(line)) for line in lines])

        batch = {"input_ids": tensor(ids, self.filler), "labels": tensor(labels, IGNORED)}
        if self.plan.layout is Layout.PADDED:
            return batch | {"attention_mask": tensor([[1] * len(tokens) for tokens in ids], 0)}
        # Positions that begin again at 0 are what tells examples apart; a mask would hide them.
        batch["position_ids"] = tensor([list(range(len(tokens))) for tokens in ids], 0)
        return batch | (_boundaries(ids) if self.plan.layout is Layout.FLAT else {})


def _boundaries(ids: list[list[int]]) -> dict[str, Any]:
    """Return where examples begin and end, as the kernels for several lengths take it."""
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
