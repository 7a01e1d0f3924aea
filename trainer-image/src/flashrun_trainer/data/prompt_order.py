"""The order of GRPO's prompts: it depends on the seed, the epoch and the sizes alone.

TRL's own sampler keeps one random generator over all epochs. A resumed process would begin that
generator anew, and ask the prompts of the first epoch again.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_KEPT_EPOCHS: Final = 2


@dataclass(frozen=True)
class PromptOrder:
    """The prompts of every step of a run.

    Each epoch has all prompts in a new order. Prompts that do not fill a whole step are left out of
    that epoch.
    """

    prompts: int
    """Number of prompts of the dataset."""
    prompts_per_step: int
    steps: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer steps of an epoch."""
        return self.prompts // self.prompts_per_step

    def step(self, step: int) -> list[int]:
        """Return the row numbers of the prompts of a step; the first step is 0."""
        epoch, index = divmod(step, self.steps_per_epoch)
        begin = index * self.prompts_per_step
        return _epoch_order(self.seed, epoch, self.prompts)[begin : begin + self.prompts_per_step]

    def epochs_until(self, step: int) -> float:
        """Return how many epochs the first ``step`` steps are."""
        return step / self.steps_per_epoch


@lru_cache(maxsize=_KEPT_EPOCHS)
def _epoch_order(seed: int, epoch: int, prompts: int) -> list[int]:
    return random.Random(f"{seed}/{epoch}").sample(range(prompts), prompts)


@dataclass(frozen=True)
class PromptSampler:
    """The sampler of the whole run, which TRL's data loader takes as a single epoch.

    With one epoch for all steps, a resume only has to skip the steps that are done, and no random
    number is drawn where an epoch begins.
    """

    order: PromptOrder
    group_size: int
    """Completions of a prompt; its row number comes as often, in a row."""
    repeats: int
    """How often the rows of a step come: TRL takes them once for every micro-batch."""

    def __len__(self) -> int:
        order = self.order
        return order.steps * order.prompts_per_step * self.group_size * self.repeats

    def __iter__(self) -> Iterator[int]:
        for step in range(self.order.steps):
            rows = [row for row in self.order.step(step) for _ in range(self.group_size)]
            for _ in range(self.repeats):
                yield from rows
