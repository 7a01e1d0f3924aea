"""Sweeps: runs of one family, of which so many run at once, and of which the worse may be stopped.

A sweep is not an object of its own. Each of its runs names it in ``spec.sweep``, so that runs which
are kept in git are a sweep, too, and the operator alone holds the limit.
"""

from typing import Annotated, Final

from pydantic import Field

from flashrun.api.base import Section
from flashrun.api.bounds import Sentence

MEMBERS_LIMIT: Final = 256
"""Most runs of one sweep."""
NAME_LIMIT: Final = 40
"""Longest name of a sweep: the names of its runs begin with it."""
RUNGS_SHOWN: Final = 32

SweepName = Annotated[str, Field(max_length=NAME_LIMIT, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
"""A lower-case RFC 1035 label."""


class StopWorse(Section):
    """Successive halving: at some steps, only the better runs go on.

    These steps, the rungs, are ``first_step`` and its multiples by powers of ``factor``. A run is
    compared with the runs that have reached the same rung.
    """

    first_step: int = Field(ge=1, le=100_000_000, examples=[20])
    """The first rung: a run is compared by its first evaluated checkpoint at or after it."""
    factor: int = Field(default=2, ge=2, le=16, examples=[2])
    """One run in so many goes on; the next rung is at so many times the step."""

    def rungs(self, last: int) -> tuple[int, ...]:
        """Return the rungs up to the step ``last``."""
        steps: list[int] = []
        step = self.first_step
        while step <= last and len(steps) < RUNGS_SHOWN:
            steps.append(step)
            step *= self.factor
        return tuple(steps)


class SweepMembership(Section):
    """The sweep that a run belongs to, with the same values in all of its runs."""

    name: SweepName = Field(examples=["ranks"])
    """Name of the sweep; the runs of a namespace that give the same name belong together."""
    limit: int = Field(default=1, ge=1, le=MEMBERS_LIMIT, examples=[2])
    """How many of its runs may run at once; the others wait."""
    stop_worse: StopWorse | None = None
    """Which runs end early because others are better; when left out, none."""


class RungStatus(Section):
    """How good a run was at one rung."""

    rung: int
    step: int
    """Step of the checkpoint that was compared."""
    score: Annotated[str, Field(max_length=32)]


class SweepStatus(Section):
    """How a run stands in its sweep."""

    rungs: tuple[RungStatus, ...] = Field(default=(), max_length=RUNGS_SHOWN)
    """The rungs that it has reached; what is recorded stays."""
    stopped: Sentence = ""
    """Why it ends before it is trained; empty while it goes on."""
