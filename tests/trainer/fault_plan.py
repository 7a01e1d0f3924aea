"""What goes wrong in a run, and when: a plan that depends on a seed alone."""

import json
import random
from dataclasses import asdict, dataclass
from typing import Any

ENDS = ("stop", "stop in a hang", "kill", "exit")
"""How an attempt ends: two SIGTERMs, of which one arrives in a call that hangs; a SIGKILL; a judge
that calls ``os._exit``."""


@dataclass(frozen=True)
class FaultPlan:
    """The faults of a run; steps count from 1."""

    seed: int
    steps: int
    threads: int
    """``max_score_concurrency``: 1 judges on the trainer's main thread."""
    failing_share: float
    """The share of completions whose judgement fails, in every step."""
    away: dict[int, int]
    """Steps in which the judge is away for all completions, and for how many tries."""
    unreadable: tuple[int, ...]
    """Steps in which completions with certain letters cannot be judged."""
    hanging: tuple[int, ...]
    """Steps in which calls hang or return too late."""
    hanging_share: float
    killed_workers: tuple[int, ...]
    """Steps after which the judge's threads die."""
    ends: dict[int, str]
    """Steps in which the process ends, and how."""
    outage: tuple[int, int]
    """The first and the last step at whose end storage is away."""

    def params(self, **more: Any) -> dict[str, Any]:
        """The plan as the environment reads it."""
        return {"plan": json.loads(json.dumps(asdict(self) | more))}


def make_plan(seed: int, steps: int) -> FaultPlan:
    """Return the plan of a seed; a longer run has more faults, but ends as often."""
    chance = random.Random(seed)
    later = range(2, steps - 1)

    def some(one_in: int) -> tuple[int, ...]:
        return tuple(sorted(chance.sample(later, max(1, steps // one_in))))

    ways = chance.sample(ENDS, len(ENDS))
    length = max(3, steps // 8)
    begin = chance.randrange(2, steps - length)
    return FaultPlan(
        seed=seed,
        steps=steps,
        threads=(1, 4)[seed % 2],
        failing_share=0.15,
        away=dict(zip(some(50), (3, 2, 1, 1), strict=False)),
        unreadable=some(10),
        hanging=some(25),
        hanging_share=0.1,
        killed_workers=some(25),
        ends=dict(sorted(zip(chance.sample(later, len(ways)), ways, strict=True))),
        outage=(begin, begin + length),
    )


def no_faults(seed: int, steps: int) -> FaultPlan:
    """Return a plan without faults."""
    return FaultPlan(
        seed=seed,
        steps=steps,
        threads=4,
        failing_share=0.0,
        away={},
        unreadable=(),
        hanging=(),
        hanging_share=0.0,
        killed_workers=(),
        ends={},
        outage=(0, -1),
    )
