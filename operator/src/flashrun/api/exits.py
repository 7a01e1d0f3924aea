"""How an attempt ends: exit codes and the termination message.

One table serves the trainer (which exits), the Job (whose failure policy reads the code) and the
operator (which explains it). The codes follow sysexits.h where it has a fitting one.
"""

from enum import IntEnum
from typing import Annotated, Final, Self

from pydantic import AfterValidator, StringConstraints

from flashrun.api.base import Record
from flashrun.api.bounds import AttemptNumber, Count, clean_text
from flashrun.api.reasons import ForeignReason, Owner, Reason, ReasonText, Retry
from flashrun.api.record_reader import RecordRefused, read_record

MESSAGE_LIMIT: Final = 1024
"""Longest message and hint, in characters; the kubelet keeps 4,096 bytes in all."""


class Exit(IntEnum):
    """Exit codes of every container of a trainer pod."""

    reason: Reason
    """The reason of an attempt whose trainer left no termination message."""
    sentence: str
    hint: str
    """What to do next."""

    def __new__(
        cls, code: int, reason: Reason = Reason.TRAINER_FAILED, sentence: str = "", hint: str = ""
    ) -> Self:
        """Return the member that is equal to ``code``."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.reason, member.sentence, member.hint = reason, sentence, hint
        return member

    DONE = 0, Reason.SUCCEEDED, "The trainer is done; result and adapter are in storage."
    INTERRUPTED_SAVED = 40, Reason.INTERRUPTED, "The pod was asked to stop and saved its state."
    INTERRUPTED_UNSAVED = (
        41,
        Reason.INTERRUPTED,
        "The pod was asked to stop before it could save.",
    )
    CONFIG = 64, Reason.CONFIG_INVALID, "The trainer refused the resolved spec.", "See flash log."
    CUDA_OUT_OF_MEMORY = (
        65,
        Reason.CUDA_OUT_OF_MEMORY,
        "The GPU ran out of memory.",
        "Lower train.batch_size, train.max_length or train.max_tokens.",
    )
    GPU_FAULT = 66, Reason.GPU_FAULT, "The GPU reported a hardware fault.", "Try again."
    NCCL = 67, Reason.NCCL_FAILURE, "The GPUs lost contact with each other.", "Try again."
    HOST_OUT_OF_MEMORY = (
        68,
        Reason.OUT_OF_MEMORY,
        "The trainer could not allocate main memory.",
        "Lower train.batch_size or train.max_length.",
    )
    MODEL_UNAVAILABLE = (
        69,
        Reason.MODEL_UNAVAILABLE,
        "The base model or the adapter to start from could not be downloaded.",
        "Check model and train.init_from_adapter.",
    )
    ENVIRONMENT = (
        70,
        Reason.ENVIRONMENT_FAILED,
        "The environment's own code failed.",
        "See flash log; correct the environment, push it and train again.",
    )
    DIVERGED = (
        71,
        Reason.DIVERGED,
        "The loss, a gradient or a weight is not finite.",
        "Lower train.learning_rate.",
    )
    DATA = 72, Reason.DATA_INVALID, "The dataset cannot be used.", "See flash log."
    SAMPLER_STALE = (
        73,
        Reason.SAMPLER_STALE,
        "The policy that is trained is not the one from which vLLM samples.",
        "Report it with the model's name; a trainer image without vLLM samples with transformers.",
    )
    TEMPORARY = (
        75,
        Reason.STORAGE_UNAVAILABLE,
        "Storage, model hub, package index or the judge of a run did not answer.",
        "Try again; if it happens again, ask the platform's administrator.",
    )
    TERMINATED = 143, Reason.INTERRUPTED, "The pod was stopped before it could save."

    @property
    def owner(self) -> Owner:
        """Who can do something about it."""
        return self.reason.owner

    @property
    def retry(self) -> Retry:
        """What follows an attempt that ended with this code."""
        assert self.reason.retry is not None  # a test goes through all codes
        return self.reason.retry


def exit_of(code: int | None) -> Exit | None:
    """Return the member for ``code``; None for a code that the trainer never ends with itself."""
    return Exit(code) if code in set(Exit) else None


IGNORED_CODES: Final = tuple(int(code) for code in Exit if code.retry is Retry.UNCOUNTED)
"""Exit codes that the Job does not count."""
FAILING_CODES: Final = tuple(
    int(code)
    for code in Exit
    if code is not Exit.DONE and code.retry in (Retry.NEVER, Retry.LARGER_POOL, Retry.OTHER_NODE)
)
"""Exit codes that fail the Job at once."""


Message = Annotated[str, StringConstraints(max_length=MESSAGE_LIMIT), AfterValidator(clean_text)]
"""Free text on one line, without secrets."""


class Termination(Record):
    """What a container leaves in its termination message, as JSON."""

    reason: Annotated[Reason | ForeignReason, ReasonText(pattern=r"^[A-Z][A-Za-z]{1,62}$")]
    """CamelCase, stable, for programs; a newer trainer may have reasons that we do not know."""
    message: Message
    """One sentence, for people."""
    hint: Message = ""
    """What to do next, naming the config key where there is one."""
    attempt: AttemptNumber | None = None
    step: Count | None = None
    peak_memory_bytes: Count | None = None


def parse_termination(text: str) -> Termination | None:
    """Read a termination message; None when it is not one of ours (killed, crashed, foreign)."""
    if not text:  # of every container that has not ended: a refusal costs more than a reading
        return None
    try:
        return read_record(text, Termination)
    except RecordRefused:
        return None
