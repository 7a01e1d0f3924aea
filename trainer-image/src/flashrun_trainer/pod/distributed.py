"""The processes that train together: who this one is, and how they agree.

Gradients are TRL's business. What is here are the few words in between: whether somebody was asked
to stop, which checkpoint to go on from, what each one's random numbers were. They go over the CPU,
so that none of them waits for a GPU. Alone, a process agrees with itself, and needs no PyTorch.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self, TypeVar

Value = TypeVar("Value")

RANK: Final = "RANK"
_COLLECTIVE: Final = timedelta(hours=1)
"""Longest wait for each other: one process may be at its rewards while the others are not.

A process that is gone is noticed by the launchers, long before.
"""


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run; by default there is no other."""

    number: int = 0
    """Position among all processes, from 0."""
    local: int = 0
    """Position among those of this pod, from 0."""
    world: int = 1
    """How many there are."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read what the launcher has set, under the names that PyTorch uses."""
        return cls(
            number=int(environment[RANK]),
            local=int(environment["LOCAL_RANK"]),
            world=int(environment["WORLD_SIZE"]),
        )

    @property
    def leads(self) -> bool:
        """Whether this process reports and saves for all."""
        return self.number == 0

    def join(self) -> None:
        """Meet the others."""
        if self.world == 1:
            return
        import torch
        from torch import distributed

        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(self.local)
        # With both, flags and Python objects go over the CPU although gradients do not.
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        distributed.init_process_group(backend, init_method="env://", timeout=_COLLECTIVE)

    def any_of(self, *wishes: bool) -> tuple[bool, ...]:
        """Return for each wish whether any process has it."""
        if self.world == 1:
            return wishes
        import torch
        from torch import distributed

        found = torch.tensor([int(wish) for wish in wishes])
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return tuple(bool(wish) for wish in found.tolist())

    def gathered(self, value: Value) -> list[Value]:
        """Return everybody's value, in the order of their numbers."""
        if self.world == 1:
            return [value]
        from torch import distributed

        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, value)
        return found

    def shared(self, value: Value) -> Value:
        """Return the first process's value; what the others give is not looked at."""
        return self.gathered(value)[0]

    def wait(self) -> None:
        """Wait until everybody is here."""
        self.gathered(None)

    def once_a_pod(self, work: Callable[[], Value]) -> Value | None:
        """Let one process of each pod do what the others of it shall find done."""
        done = work() if self.local == 0 else None
        self.wait()
        return done


def threads(processes: int) -> str:
    """Return how many CPU threads each of a pod's processes gets."""
    return str(max(1, len(os.sched_getaffinity(0)) // processes))
