"""SFT's data: which examples every optimizer step learns, and how they fill its passes.

A step learns ``batch_size`` examples, whatever it runs on: the order of the examples depends on the
seed alone. Packing happens within a step, so that it changes how much is computed and not what is
learned. A step is cut into the same number of passes every time, because TRL's loop counts them.
"""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count, pairwise
from typing import Any, Final

from flashrun.spec.records import ResolvedRun

IGNORED: Final = -100
"""Label of a token that is not learned."""


class Layout(StrEnum):
    """How the examples of one pass lie in its tensors."""

    PADDED = "padded"
    """One example a row, filled up to the longest: for layers that would mix what shares a row."""
    ROWS = "rows"
    """Examples share rows of at most ``max_length``; attention masks keep them apart."""
    FLAT = "flat"
    """All examples in one row; kernels for sequences of several lengths keep them apart."""


@dataclass(frozen=True)
class Plan:
    """Every pass of a run, in the order in which they are read."""

    layout: Layout
    width: int
    """Longest row, where examples share rows."""
    passes: int
    """Passes of one process before the optimizer steps."""
    shares: tuple[tuple[int, ...], ...]
    """Examples of one pass on one device: step by step, pass by pass, process by process."""
    tokens: tuple[int, ...]
    """Tokens of every step."""

    @property
    def at_once(self) -> int:
        """Most examples of one pass."""
        return max(len(share) for share in self.shares)

    def tokens_until(self, step: int) -> int:
        """Return the tokens of the first ``step`` steps."""
        return sum(self.tokens[:step])


def steps(run: ResolvedRun, examples: int) -> list[list[int]]:
    """Return the examples of every optimizer step: each epoch has all of them, in a new order."""
    found: list[list[int]] = []
    for epoch in range(run.train.epochs or 1):
        order = random.Random(f"{run.seed}/{epoch}").sample(range(examples), examples)
        size = run.train.batch_size
        found += [order[begin : begin + size] for begin in range(0, examples, size)]
    return found[: run.train.max_steps or None]


def plan(
    run: ResolvedRun,
    lengths: Sequence[int],
    layout: Layout,
    most_tokens: int | None = None,
    processes: int = 1,
) -> Plan:
    """Cut every step into as few passes as keep each within ``most_tokens``; None is no limit.

    A single example that is longer than that goes through alone.
    """
    wanted = steps(run, len(lengths))
    width = run.train.max_length

    def fits(share: Sequence[int]) -> bool:
        if most_tokens is None or len(share) <= 1:
            return True
        return computed([lengths[example] for example in share], layout, width) <= most_tokens

    for passes in count(1):
        dealt = [_dealt(step, passes * processes, lengths, layout) for step in wanted]
        if all(fits(share) for shares in dealt for share in shares):
            break
    return Plan(
        layout,
        width,
        passes,
        tuple(tuple(share) for shares in dealt for share in shares),
        tuple(sum(lengths[example] for example in step) for step in wanted),
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


def said(plan: Plan, lengths: Sequence[int]) -> str:
    """Return in one sentence what a step computes, and how much of it is filling."""
    needed = sum(plan.tokens)
    done = sum(
        computed([lengths[example] for example in share], plan.layout, plan.width)
        for share in plan.shares
    )
    return (
        f"{len(lengths)} examples, {len(plan.tokens)} steps of {plan.passes} passes, "
        f"layout {plan.layout}: {1 - needed / max(done, 1):.0%} of what is computed is filling"
    )


@dataclass(frozen=True)
class Collator:
    """Makes tensors of one pass, whose item names its ``examples``."""

    layout: Layout
    width: int
    filler: int
    """Token that fills up rows."""
    rows: Sequence[Any]
    """All examples, with ``input_ids`` and ``labels``."""

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return what the model takes; of a pass without examples, one that teaches nothing."""
        import torch

        (item,) = items
        taken = [self.rows[example] for example in item["examples"]]
        ids = [list(row.input_ids) for row in taken] or [[self.filler] * 2]
        labels = [[IGNORED, *row.labels[1:]] for row in taken] or [[IGNORED] * 2]
        rows = arranged([len(tokens) for tokens in ids], self.layout, self.width)
        longest = max(sum(len(ids[index]) for index in row) for row in rows)

        def tensor(parts: list[list[int]], filler: int) -> Any:
            lines = [[token for index in row for token in parts[index]] for row in rows]
            return torch.tensor([line + [filler] * (longest - len(line)) for line in lines])

        batch = {"input_ids": tensor(ids, self.filler), "labels": tensor(labels, IGNORED)}
        if self.layout is Layout.PADDED:
            return batch | {"attention_mask": tensor([[1] * len(tokens) for tokens in ids], 0)}
        # Positions that begin again at 0 are what tells examples apart; a mask would hide them.
        batch["position_ids"] = tensor([list(range(len(tokens))) for tokens in ids], 0)
        return batch | (_boundaries(ids) if self.layout is Layout.FLAT else {})


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
