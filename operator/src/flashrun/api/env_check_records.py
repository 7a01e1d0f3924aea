"""What ``flash env test`` and the process that tries an environment say to each other.

The environment's code runs in a process of its own, which may crash, hang or end itself at any
moment. So it tells what it does before it does it, one line of JSON an event; whoever started it
reads the lines afterwards and knows how far it got.
"""

from pydantic import Field, JsonValue

from flashrun.api.base import Record


class EnvCheckTask(Record):
    """What to try."""

    folder: str
    split: str
    params: dict[str, JsonValue] = {}
    thinking: bool = False
    """Whether reasoning is left out of what is scored."""
    scored: int
    """How many rows are scored; prompts are built for all of them."""


class Fault(Record):
    """Something that is wrong with the environment or its data, and where."""

    sentence: str
    place: str = ""
    """File and line in the environment's folder; empty when that is unknown."""
    fatal: bool = True
    """Whether a run would fail with it."""


class ScoredAnswer(Record):
    """One answer, or one episode of answers, as the environment scored it."""

    score: float | None = None
    """None when scoring raised, or gave no number."""
    error: str = ""
    place: str = ""
    turns: int = 1
    seconds: float = 0


class CheckedRow(Record):
    """One row of the split, as the trainer would use it."""

    number: int = Field(ge=1)
    prompt: str
    """Beginning of the prompt's last message."""
    prompt_characters: int
    answer: str = ""
    """Beginning of the answer to imitate; empty when the row has none."""
    answer_characters: int = 0
    has_thoughts: bool = False
    """Whether the answer has a ``<think>`` block."""
    gold: ScoredAnswer | None = None
    """The row's own answer; None when it has none, or is not scored."""
    junk: tuple[ScoredAnswer, ...] = ()
    """Answers that deserve nothing."""


class CheckEvent(Record):
    """One line: what is about to be done, or what came of it."""

    doing: str = ""
    rows: int | None = None
    """How many rows there are."""
    fault: Fault | None = None
    row: CheckedRow | None = None
    over: bool = False
    """The last event of a process that came to its end."""
