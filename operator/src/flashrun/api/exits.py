"""How an attempt ends: exit codes, reasons and the termination message.

One table serves the trainer (which exits), the Job (whose failure policy reads the code) and the
operator (which explains it). The codes follow sysexits.h where it has a fitting one.
"""

from enum import IntEnum, StrEnum
from typing import Final

from pydantic import Field, ValidationError

from flashrun.api.base import Record

MESSAGE_LIMIT: Final = 1024
"""Longest message and hint, in characters; the kubelet keeps 4,096 bytes in all."""


class Exit(IntEnum):
    """Exit codes of every container of a trainer pod."""

    DONE = 0
    INTERRUPTED_SAVED = 40
    INTERRUPTED_UNSAVED = 41
    CONFIG = 64
    CUDA_OUT_OF_MEMORY = 65
    GPU_FAULT = 66
    NCCL = 67
    MODEL_UNAVAILABLE = 69
    ENVIRONMENT = 70
    DIVERGED = 71
    DATA = 72
    TEMPORARY = 75
    TERMINATED = 143


class Retry(StrEnum):
    """What follows an attempt that ended with a code."""

    NEVER = "never"
    """The same again would fail the same way."""
    FREE = "free"
    """Nobody's fault: again, without counting it."""
    COUNTED = "counted"
    """Again, within the platform's number of retries."""
    LARGER_POOL = "larger-pool"
    """Again in a new Job on GPUs with more memory, when there are any."""
    OTHER_NODE = "other-node"
    """Again in a new Job away from the node that failed."""


RETRIES: Final[dict[Exit, Retry]] = {
    Exit.DONE: Retry.NEVER,
    Exit.INTERRUPTED_SAVED: Retry.FREE,
    Exit.INTERRUPTED_UNSAVED: Retry.FREE,
    Exit.TERMINATED: Retry.FREE,
    Exit.CONFIG: Retry.NEVER,
    Exit.CUDA_OUT_OF_MEMORY: Retry.LARGER_POOL,
    Exit.GPU_FAULT: Retry.OTHER_NODE,
    Exit.NCCL: Retry.COUNTED,
    Exit.MODEL_UNAVAILABLE: Retry.NEVER,
    Exit.ENVIRONMENT: Retry.NEVER,
    Exit.DIVERGED: Retry.NEVER,
    Exit.DATA: Retry.NEVER,
    Exit.TEMPORARY: Retry.COUNTED,
}

IGNORED_CODES: Final = tuple(int(code) for code, retry in RETRIES.items() if retry is Retry.FREE)
"""Exit codes that the Job does not count."""
FAILING_CODES: Final = tuple(
    int(code)
    for code, retry in RETRIES.items()
    if code is not Exit.DONE and retry in (Retry.NEVER, Retry.LARGER_POOL, Retry.OTHER_NODE)
)
"""Exit codes that fail the Job at once."""


class Termination(Record):
    """What a container leaves in its termination message, as JSON."""

    reason: str = Field(pattern=r"^[A-Z][A-Za-z]{1,62}$")
    """CamelCase, stable, for programs."""
    message: str = Field(max_length=MESSAGE_LIMIT)
    """One sentence, for people."""
    hint: str = Field(default="", max_length=MESSAGE_LIMIT)
    """What to do next, naming the config key where there is one."""
    attempt: int | None = None
    step: int | None = None
    peak_memory_bytes: int | None = None


def parse_termination(text: str) -> Termination | None:
    """Read a termination message; None when it is not one of ours (killed, crashed, foreign)."""
    try:
        return Termination.model_validate_json(text)
    except ValidationError:
        return None
