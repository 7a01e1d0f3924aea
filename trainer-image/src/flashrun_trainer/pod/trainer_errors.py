"""How an attempt fails: from an exception to an exit code, a reason, one sentence and a hint.

Code that knows why it fails raises ``TrainerError``. Every other exception is classified here, by
its type name and its text, so that this module needs neither PyTorch nor a GPU.
"""

import json
import math
import re
import traceback
from bisect import bisect_right
from pathlib import Path
from typing import Final

from flashrun.api.exits import MESSAGE_LIMIT, Exit
from flashrun.api.reasons import Reason
from flashrun.store_errors import StoreError

UNEXPECTED: Final = 1
"""Exit code of an error that is not classified; the attempt is retried, and counted."""
_MESSAGE_BYTES: Final = 1900
"""Most bytes of a message, and of a hint, as JSON: the kubelet keeps 4,096 bytes in all."""


class TrainerError(Exception):
    """A failure with a known reason."""

    def __init__(self, code: int, reason: Reason, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.hint = hint


class InterruptedBeforeTraining(BaseException):
    """SIGTERM arrived when there was nothing to save.

    This is not an ``Exception``, so that an environment's ``except Exception`` cannot swallow it.
    """


def classify(error: BaseException, user_code: Path | None = None) -> TrainerError:
    """Return the ``TrainerError`` for ``error``; user packages lie below ``user_code``."""
    match error:
        case TrainerError():
            return error
        case InterruptedBeforeTraining():
            return TrainerError(
                Exit.INTERRUPTED_UNSAVED,
                Reason.INTERRUPTED,
                "the pod was asked to stop before training began; there was nothing to save",
                "the run restarts automatically",
            )
        case StoreError():
            # Denied and damaged storage is retried, too: credentials are renewed, disks replaced.
            return TrainerError(
                Exit.TEMPORARY,
                Reason.STORAGE_UNAVAILABLE,
                str(error),
                "the run is retried from its last checkpoint; if storage stays unavailable, ask "
                "the platform's administrator",
            )
        case MemoryError():
            return TrainerError(*_HOST_MEMORY)
        case _:
            return (
                _from_text(error) or _from_traceback(error, user_code) or _unexpected_error(error)
            )


_HOST_MEMORY: Final = (
    Exit.HOST_OUT_OF_MEMORY,
    Reason.OUT_OF_MEMORY,
    "the pod ran out of memory",
    "lower train.batch_size, or ask the platform's administrator for more memory per GPU",
)
_GPU_MEMORY: Final = (
    Exit.CUDA_OUT_OF_MEMORY,
    Reason.CUDA_OUT_OF_MEMORY,
    "the GPU ran out of memory",
    "lower train.max_length, train.batch_size or train.lora_rank; for GRPO also train.max_tokens "
    "and train.group_size",
)
_TORCH: Final = frozenset({"RuntimeError", "OSError", "SafetensorError"})
"""Names of what PyTorch and its libraries raise; the text of other errors proves nothing."""
_KNOWN_TEXTS: Final = (
    (
        _TORCH,
        re.compile(
            r"OutOfMemoryError|(?i:cuda\b[^\n]{0,40}out of memory)|CU\w+_STATUS_ALLOC_FAILED"
        ),
        _GPU_MEMORY,
    ),
    (
        frozenset({"ValueError"}),  # vLLM refuses before it allocates
        re.compile(
            r"No available memory for the cache blocks|larger than the available KV cache memory"
            r"|less than desired GPU memory utilization"
        ),
        _GPU_MEMORY,
    ),
    (
        _TORCH,
        re.compile(
            r"uncorrectable ECC|unspecified launch failure|device.{0,20} lost|illegal instruction"
            r"|CUDA error: (?:an illegal memory access|misaligned address|hardware)"
            r"|CUDA-capable device\(s\) is/are busy|GPU is lost|CUDA unknown error"
            r"|no CUDA-capable device|CUDA driver initialization failed"
        ),
        (Exit.GPU_FAULT, Reason.GPU_FAULT, "the GPU failed", "the run is retried on another node"),
    ),
    (
        _TORCH,
        re.compile(
            r"\bDist[A-Z]\w+Error|NCCL|ProcessGroup|c10d|Watchdog caught collective|TCPStore"
            r"|(?i:\bgloo\b)"
        ),
        (
            Exit.NCCL,
            Reason.NCCL_FAILED,
            "the GPUs lost the connection to each other",
            "the run is retried from its last checkpoint; if it fails again, ask the platform's "
            "administrator to check the network between the nodes",
        ),
    ),
    (
        _TORCH,
        re.compile(r"No space left on device"),
        (
            UNEXPECTED,
            Reason.DISK_FULL,
            "the pod's disk is full",
            "lower train.lora_rank, or ask the platform's administrator for a larger disk",
        ),
    ),
    (_TORCH, re.compile(r"DefaultCPUAllocator|Cannot allocate memory"), _HOST_MEMORY),
)


_VLLM_LENGTH: Final = re.compile(r"estimated maximum model length is (\d+)")
"""The longest sequence for which vLLM has found memory at its start."""


def _from_text(error: BaseException) -> TrainerError | None:
    """Classify by its text what PyTorch raises; an environment's ValueError is not a GPU fault."""
    type_names = {kind.__name__ for kind in type(error).__mro__}
    text = f"{type(error).__name__}: {error_text(error)}"
    for raised_as, pattern, (code, reason, message, hint) in _KNOWN_TEXTS:
        if type_names & raised_as and pattern.search(text):
            if longest := _VLLM_LENGTH.search(text):
                hint = f"set train.max_length to {longest[1]}, which vLLM has measured, or lower it"
            return TrainerError(code, reason, f"{message} ({first_line(str(error))})", hint)
    return None


def _from_traceback(error: BaseException, user_code: Path | None) -> TrainerError | None:
    """Return an environment failure when the error was raised below the user's code."""
    if user_code is None:
        return None
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).is_relative_to(user_code)]
    if not inside:
        return None
    place = f"{Path(inside[-1].filename).relative_to(user_code)}:{inside[-1].lineno}"
    return TrainerError(
        Exit.ENVIRONMENT,
        Reason.ENVIRONMENT_FAILED,
        f"the environment failed in {place} with {format_error(error)}",
        "correct the environment and publish it again with flash env push",
    )


def _unexpected_error(error: BaseException) -> TrainerError:
    return TrainerError(
        UNEXPECTED,
        Reason.UNEXPECTED,
        f"the trainer failed with {format_error(error)}",
        "see the traceback in flash log",
    )


def format_error(error: BaseException) -> str:
    """Return an exception as ``Type: first line of its message``."""
    return f"{type(error).__name__}: {first_line(error_text(error))}".rstrip(": ")


def error_text(error: BaseException) -> str:
    """Return ``str(error)``; exceptions of other libraries may fail when they are printed."""
    try:
        return str(error)
    except Exception as own:
        return f"its message cannot be printed ({type(own).__name__})"


def first_line(text: str) -> str:
    """Return the first line of ``text``, at most 400 characters."""
    line = valid_text(text.strip().splitlines()[0]) if text.strip() else ""
    return line if len(line) <= 400 else line[:399] + "…"


def valid_text(text: str) -> str:
    """Return ``text`` with escapes for what is not Unicode: half characters (lone surrogates)."""
    return text.encode(errors="backslashreplace").decode()


def shorten(text: str) -> str:
    """Return ``text`` cut to the limits of a termination message: characters, and bytes of JSON."""
    if len(text) <= MESSAGE_LIMIT and _json_bytes(text) <= _MESSAGE_BYTES:
        return text
    room = _MESSAGE_BYTES - len("…".encode())
    longest = bisect_right(range(MESSAGE_LIMIT), room, key=lambda end: _json_bytes(text[:end]))
    return text[: longest - 1] + "…"


def _json_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode())


def divergence_error(name: str, value: float, step: int) -> TrainerError | None:
    """Return the error of a run whose ``value`` (a loss, gradient or weight) is not finite."""
    if math.isfinite(value):
        return None
    return TrainerError(
        Exit.DIVERGED,
        Reason.DIVERGED,
        f"{name} is {value} at step {step}: training diverged",
        "lower train.learning_rate; the checkpoints before this step are intact",
    )
