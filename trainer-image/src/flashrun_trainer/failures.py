"""How an attempt ends badly: exception → exit code, one sentence, and what to do next.

Code that knows why it fails raises ``TrainerError``. Everything else is recognized here, by type
name and text, so that this module needs neither torch nor a GPU.
"""

import math
import re
import traceback
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from flashrun.spec import names, secrecy
from flashrun.spec.outcome import MESSAGE_LIMIT, Exit
from flashrun.spec.records import ResolvedRun
from flashrun.store import StoreError

UNEXPECTED: Final = 1
"""Exit code of an error that nobody foresaw; it is retried, and counted."""
_SHORTEST_SECRET: Final = 6
"""Shorter values are not looked for: they would be found in every other word."""


_IN_ADDRESSES: Final = re.compile(
    r"""((?i:://[^\s/:@]*:(?=[^\s/@]+@)
        |://(?=[^\s/:@]{12,}@)
        |[?&](?:[\w-]*(?:token|signature|secret|password|credential|api_?key)[\w-]*|sig|key)=
        |\bauthorization\W{1,4}basic\s+
        |\bbearer\s+(?=[\w.~+/=-]*\d)))(?:[^\s&@"'<>]+)""",
    re.VERBOSE,
)
"""Passwords, signatures and tokens that libraries print as part of an address or a header."""


class TrainerError(Exception):
    """An end with a known reason."""

    def __init__(self, code: int, reason: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.hint = hint


class InterruptedBeforeTraining(BaseException):
    """SIGTERM came while there was nothing to save.

    Not an ``Exception``, so that no environment's ``except Exception`` swallows it.
    """


@dataclass(frozen=True)
class Redactor:
    """Takes secret values out of text that leaves the pod."""

    secrets: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: ResolvedRun, environment: Mapping[str, str], others: Iterable[str]) -> Self:
        """Collect the values of the run's secrets, of variables named like one, and ``others``."""
        listed = {*run.environment.secrets, names.WANDB_API_KEY}
        values = {
            value
            for name, value in environment.items()
            if name in listed or (secrecy.secret_name(name) and name not in run.worker_env)
        }
        values.update(others, _passwords(run.pip_index_url), _passwords(run.hub_endpoint))
        plain = {value for value in values if len(value) >= _SHORTEST_SECRET}
        spelled = plain | {urllib.parse.quote(value, safe="") for value in plain}
        lines = {line for value in spelled for line in value.splitlines()}
        long_enough = {line for line in spelled | lines if len(line) >= _SHORTEST_SECRET}
        return cls(tuple(sorted(long_enough, key=len, reverse=True)))

    def __call__(self, text: str) -> str:
        """Return ``text`` with asterisks for secret values: known ones, and those in addresses."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return _IN_ADDRESSES.sub(lambda found: f"{found[1]}***", text)


def _passwords(url: str) -> tuple[str, ...]:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return ()
    return tuple(filter(None, (parts.password,)))


def explain(error: BaseException, own_code: Path | None = None) -> TrainerError:
    """Return the known end that ``error`` stands for; ``own_code`` holds the user's packages."""
    match error:
        case TrainerError():
            return error
        case InterruptedBeforeTraining():
            return TrainerError(
                Exit.INTERRUPTED_UNSAVED,
                "Interrupted",
                "the pod was asked to stop before training began; there was nothing to save",
                "it is started again by itself",
            )
        case StoreError():
            # Denied and damaged storage is counted too: credentials are renewed, disks replaced.
            return TrainerError(
                Exit.TEMPORARY,
                "StorageUnavailable",
                str(error),
                "it is tried again from the last checkpoint; storage is the platform's to look at",
            )
        case MemoryError():
            return TrainerError(
                UNEXPECTED,
                "OutOfMemory",
                "the pod ran out of memory",
                "lower train.batch_size, or ask the platform for more memory a GPU",
            )
        case _:
            return _from_text(error) or _from_place(error, own_code) or _unexpected(error)


_MEMORY_HINT: Final = (
    "lower train.max_length, train.batch_size or train.lora_rank; for GRPO also train.max_tokens "
    "and train.group_size"
)
_KNOWN_TEXTS: Final = (
    (
        re.compile(r"CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDA error: out of memory"),
        (Exit.CUDA_OUT_OF_MEMORY, "CudaOutOfMemory", "the GPU ran out of memory", _MEMORY_HINT),
    ),
    (
        re.compile(
            r"uncorrectable ECC|unspecified launch failure|device.{0,20} lost|illegal instruction"
            r"|CUDA error: (?:an illegal memory access|misaligned address|hardware)"
            r"|CUDA-capable device\(s\) is/are busy|GPU is lost|CUDA unknown error"
            r"|no CUDA-capable device|CUDA driver initialization failed"
        ),
        (Exit.GPU_FAULT, "GpuFault", "the GPU failed", "the run goes on on another node"),
    ),
    (
        re.compile(
            r"NCCL|ProcessGroup|c10d|Watchdog caught collective|gloo|TCPStore|DistStoreError"
        ),
        (
            Exit.NCCL,
            "NcclFailed",
            "the GPUs lost touch with each other",
            "it is tried again from the last checkpoint; when that happens each time, the nodes' "
            "network is the platform's to look at",
        ),
    ),
    (
        re.compile(r"No space left on device"),
        (
            UNEXPECTED,
            "DiskFull",
            "the pod's disk is full",
            "lower train.lora_rank, or ask for disk",
        ),
    ),
)


def _from_text(error: BaseException) -> TrainerError | None:
    """Recognize what PyTorch says; a plain ValueError of an environment never counts as a GPU."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if not kinds & {"RuntimeError", "OSError"}:
        return None
    text = str(error)
    if "OutOfMemoryError" in kinds:
        text = f"CUDA out of memory: {text}"
    for pattern, (code, reason, message, hint) in _KNOWN_TEXTS:
        if pattern.search(text):
            return TrainerError(code, reason, f"{message} ({first_line(text)})", hint)
    return None


def _from_place(error: BaseException, own_code: Path | None) -> TrainerError | None:
    """Blame the environment when the error came out of its code."""
    if own_code is None:
        return None
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).is_relative_to(own_code)]
    if not inside:
        return None
    place = f"{Path(inside[-1].filename).relative_to(own_code)}:{inside[-1].lineno}"
    return TrainerError(
        Exit.ENVIRONMENT,
        "EnvironmentFailed",
        f"the environment failed in {place} with {sentence(error)}",
        "correct the environment and publish it again with flash env push",
    )


def _unexpected(error: BaseException) -> TrainerError:
    return TrainerError(
        UNEXPECTED,
        "Unexpected",
        f"the trainer failed with {sentence(error)}",
        "the log has the traceback: flash log",
    )


def sentence(error: BaseException) -> str:
    """Return type and message of an exception on one line."""
    return f"{type(error).__name__}: {first_line(str(error))}".rstrip(": ")


def first_line(text: str) -> str:
    """Return the first line of ``text``, shortened."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 400 else line[:399] + "…"


def shortened(text: str) -> str:
    """Return ``text`` within the limit of a termination message."""
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"


def diverged(name: str, value: float, step: int) -> TrainerError | None:
    """Return the end of a run whose loss or gradient is no number any more."""
    if math.isfinite(value):
        return None
    return TrainerError(
        Exit.DIVERGED,
        "Diverged",
        f"{name} is {value} at step {step}: training diverged",
        "lower train.learning_rate; the checkpoints before this step are intact",
    )
