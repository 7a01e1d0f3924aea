"""The processes that train together: the rank of this one, and the collectives between them.

TRL synchronizes gradients. This module wraps the few collectives that the trainer needs itself:
whether any rank was asked to stop, which checkpoint to resume from, the random states of all ranks.
They run on the CPU (gloo), so that they never wait for a GPU. A run of one process needs neither a
collective nor PyTorch: each method then returns its own value.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self, TypeVar

Value = TypeVar("Value")

RANK: Final = "RANK"
_COLLECTIVE_TIMEOUT: Final = timedelta(hours=1)
"""How long a collective waits: one rank may still compute rewards while the others are done.

A process that has died is noticed by the launchers, long before this.
"""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among all processes of a run; the default is a run of one process."""

    rank: int = 0
    """Position among all processes of the run, from 0."""
    local_rank: int = 0
    """Position among the processes of this pod, from 0; also the index of the GPU to use."""
    world_size: int = 1
    """Number of processes of the run."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables that the launcher has set, under the names that PyTorch uses."""
        return cls(
            rank=int(environment[RANK]),
            local_rank=int(environment["LOCAL_RANK"]),
            world_size=int(environment["WORLD_SIZE"]),
        )

    @property
    def is_main_process(self) -> bool:
        """Whether this is rank 0, which reports and saves for all ranks."""
        return self.rank == 0

    def init_process_group(self) -> None:
        """Connect to the other ranks; blocks until all of them have called this."""
        if self.world_size == 1:
            return
        import torch
        from torch import distributed

        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(self.local_rank)
        # With both backends, flags and Python objects go over the CPU although gradients do not.
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        distributed.init_process_group(backend, init_method="env://", timeout=_COLLECTIVE_TIMEOUT)

    def any_rank(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether it is set on any rank."""
        if self.world_size == 1:
            return flags
        import torch
        from torch import distributed

        reduced = torch.tensor([int(flag) for flag in flags])
        distributed.all_reduce(reduced, distributed.ReduceOp.MAX)
        return tuple(bool(flag) for flag in reduced.tolist())

    def all_gather(self, value: Value) -> list[Value]:
        """Return the values of all ranks, in rank order."""
        if self.world_size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: Value) -> Value:
        """Return the value of rank 0; the values of other ranks are ignored."""
        return self.all_gather(value)[0]

    def barrier(self) -> None:
        """Wait until all ranks have called this."""
        self.all_gather(None)

    def run_once_per_pod(self, work: Callable[[], Value]) -> Value | None:
        """Run ``work`` on local rank 0 of each pod, and let the other ranks wait for it.

        Returns what ``work`` returned on local rank 0, and None on the other ranks.
        """
        result = work() if self.local_rank == 0 else None
        self.barrier()
        return result


def threads_per_process(processes: int) -> str:
    """Return how many CPU threads each of the pod's ``processes`` gets, as a variable's value."""
    return str(max(1, len(os.sched_getaffinity(0)) // processes))
