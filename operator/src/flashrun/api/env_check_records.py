"""The messages between ``flash env test`` and the process that checks an environment.

The environment's code runs in a process of its own, which may crash, hang or end itself at any
moment. It therefore announces each step before it takes it, with one line of JSON per event;
``flash env test`` reads the lines afterwards and knows the step at which the process ended.
"""

from pydantic import Field, JsonValue

from flashrun.api.base import Record
from flashrun.api.config import Algorithm


class EnvCheckTask(Record):
    """What to check."""

    id: str = ""
    """The environment, as sentences name it; empty for the name of its folder."""
    folder: str
    modules: str = ""
    """Folder for links to the modules that the trainer image has; empty to import any."""
    site: str = ""
    """Folder with the packages of the pip list; empty for none."""
    split: str
    params: dict[str, JsonValue] = {}
    algorithm: Algorithm | None = None
    """How the run learns; None when no config says it."""
    thinking: bool = False
    """Whether reasoning is left out of what is scored."""
    scored: int
    """How many rows are scored; prompts are built for all of them."""
    held_out: str = ""
    """Split on which a run is evaluated; empty when it is not."""
    held_out_required: bool = False
    """Whether a run without that split fails."""
    python: str = ""
    """Interpreter that has ``verifiers``, for an environment of it; empty for that of ``flash``."""
    model: str = ""
    """Folder with the model's tokenizer and chat template; empty for a check without them."""


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
    """None when scoring raised an error or returned no number."""
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
    """Whether the answer has reasoning, marked as the model does it or with ``<think>``."""
    gold: ScoredAnswer | None = None
    """The row's own answer; None when it has none, or is not scored."""
    junk: tuple[ScoredAnswer, ...] = ()
    """Answers that deserve no reward."""


class CheckEvent(Record):
    """One line: the next step, or the result of a step."""

    doing: str = ""
    rows: int | None = None
    """How many rows there are."""
    fault: Fault | None = None
    row: CheckedRow | None = None
    over: bool = False
    """Whether this is the last event of a process that completed its work."""
