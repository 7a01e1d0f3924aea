"""How an attempt ends badly: exception → exit code, one sentence, and what to do next.

Code that knows why it fails raises ``TrainerError``. Everything else is recognized here, by type
name and text, so that this module needs neither torch nor a GPU.
"""

import base64
import json
import math
import re
import threading
import traceback
import urllib.parse
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from flashrun.api import names, secret_patterns
from flashrun.api.exits import MESSAGE_LIMIT, Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedRun
from flashrun.store_errors import StoreError

UNEXPECTED: Final = 1
"""Exit code of an error that nobody foresaw; it is retried, and counted."""
_SHORTEST_SECRET: Final = 6
"""Shorter values are not looked for: they would be found in every other word."""
_MESSAGE_BYTES: Final = 1900
"""Most bytes of a message, and of a hint, in JSON: the kubelet keeps 4,096 of all together."""


_IN_ADDRESSES: Final = re.compile(
    r"""((?i:://[^\s/:@]*:(?=[^\s/@]+@)
        |://(?=[^\s/:@]{12,}@)
        |[?&\#](?:[\w-]{0,40}(?:token|signature|secret|password|credential|api_?key)[\w-]{0,40}
            |sig|key)=
        |\bauthorization\W{1,4}(?:b\W)?basic\s+
        |\bbearer\s+(?=[\w.~+/=-]*\d)))(?:[^\s&@"'<>\\]+)""",
    re.VERBOSE,
)
"""Passwords, signatures and tokens that libraries print as part of an address or a header."""


class TrainerError(Exception):
    """An end with a known reason."""

    def __init__(self, code: int, reason: Reason, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.hint = hint


class InterruptedBeforeTraining(BaseException):
    """SIGTERM came while there was nothing to save.

    Not an ``Exception``, so that no environment's ``except Exception`` swallows it.
    """


@dataclass
class Redactor:
    """Takes secret values out of text that leaves the pod."""

    secrets: tuple[str, ...] = field(default=(), repr=False)
    renewed: Callable[[], Iterable[str]] = tuple
    """Returns values that change now and then, such as storage keys; asked for every text."""
    _values: frozenset[str] = field(default=frozenset(), init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @classmethod
    def of(
        cls,
        run: ResolvedRun | None,
        environment: Mapping[str, str],
        renewed: Callable[[], Iterable[str]],
    ) -> Self:
        """Collect the values of the run's secrets, of variables named like one, and ``renewed``."""
        listed = {names.WANDB_API_KEY, *(run.environment.secrets if run else ())}
        shown = run.worker_env if run else {}
        addresses = (run.pip_index_url, run.hub_endpoint) if run else ()
        values = {
            value
            for name, value in environment.items()
            if name in listed or (secret_patterns.secret_name(name) and name not in shown)
        }
        values.update(*map(_passwords, addresses))
        redactor = cls(renewed=renewed)
        redactor._learn({*values, *renewed()})
        return redactor

    def _learn(self, values: Iterable[str]) -> None:
        """Hide these values, too; earlier ones stay hidden, for somebody may still have them."""
        with self._lock:
            fresh = frozenset(values) - self._values
            if not fresh:
                return
            found = {
                spelling
                for value in fresh
                if len(value.strip()) >= _SHORTEST_SECRET
                for spelling in _spellings(_unicode(value.strip(), "replace"))
                if len(spelling) >= _SHORTEST_SECRET
            }
            self.secrets = tuple(sorted({*self.secrets, *found}, key=len, reverse=True))
            self._values |= fresh

    def __call__(self, text: str) -> str:
        """Return ``text`` with asterisks for secret values: known ones, and those in addresses.

        What is no Unicode, and could be neither printed nor stored, is spelled out.
        """
        self._learn(self.renewed())
        text = _unicode(text, "backslashreplace")
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return _IN_ADDRESSES.sub(lambda found: f"{found[1]}***", self._without_remains(text))

    def _without_remains(self, text: str) -> str:
        """Hide what is left of a secret beside an ellipsis, where somebody has cut a long text."""
        pieces = _ELLIPSIS.split(text)
        for at in range(0, len(pieces) - 1, 2):
            for secret in self.secrets:
                pieces[at] = _without_beginning(pieces[at], secret)
                pieces[at + 2] = _without_end(pieces[at + 2], secret)
        return "".join(pieces)


_ELLIPSIS: Final = re.compile(r"(…|\.\.\.)")


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it may be printed: line by line, escaped, as part of an address, encoded.

    Base64 of a longer text, such as ``user:password``, has the secret in one of three shifts; what
    mixes with its neighbours is left out.
    """
    yield secret
    yield from map(str.strip, re.split(r"\n|\\n", secret))  # JSON spells the ends of lines out
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield repr(secret)[1:-1]
    for quoted in (
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote(secret),
        urllib.parse.quote_plus(secret),
    ):
        yield quoted
        yield re.sub("%..", lambda code: code[0].lower(), quoted)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            data = bytes(shift) + secret.encode()
            whole = encode(data).decode().rstrip("=")
            yield whole[(0, 2, 3)[shift] : -1 if len(data) % 3 else None]


def _without_beginning(text: str, secret: str) -> str:
    at = text.rfind(secret[:_SHORTEST_SECRET], max(0, len(text) - len(secret)))
    return f"{text[:at]}***" if at >= 0 and secret.startswith(text[at:]) else text


def _without_end(text: str, secret: str) -> str:
    end = text.find(secret[-_SHORTEST_SECRET:], 0, len(secret)) + _SHORTEST_SECRET
    return f"***{text[end:]}" if end >= _SHORTEST_SECRET and secret.endswith(text[:end]) else text


def _unicode(text: str, errors: str) -> str:
    """Return ``text`` without the halves of characters that Python lets pass."""
    return text.encode("utf-8", errors).decode()


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
                Reason.INTERRUPTED,
                "the pod was asked to stop before training began; there was nothing to save",
                "it is started again by itself",
            )
        case StoreError():
            # Denied and damaged storage is counted too: credentials are renewed, disks replaced.
            return TrainerError(
                Exit.TEMPORARY,
                Reason.STORAGE_UNAVAILABLE,
                str(error),
                "it is tried again from the last checkpoint; storage is the platform's to look at",
            )
        case MemoryError():
            return TrainerError(*_HOST_MEMORY)
        case _:
            return _from_text(error) or _from_place(error, own_code) or _unexpected(error)


_HOST_MEMORY: Final = (
    UNEXPECTED,
    Reason.OUT_OF_MEMORY,
    "the pod ran out of memory",
    "lower train.batch_size, or ask the platform for more memory a GPU",
)
_GPU_MEMORY: Final = (
    Exit.CUDA_OUT_OF_MEMORY,
    Reason.CUDA_OUT_OF_MEMORY,
    "the GPU ran out of memory",
    "lower train.max_length, train.batch_size or train.lora_rank; for GRPO also train.max_tokens "
    "and train.group_size",
)
_TORCH: Final = frozenset({"RuntimeError", "OSError", "SafetensorError"})
"""What PyTorch and its companions raise, by name; the text of any other error may say anything."""
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
        (Exit.GPU_FAULT, Reason.GPU_FAULT, "the GPU failed", "the run goes on on another node"),
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
            "the GPUs lost touch with each other",
            "it is tried again from the last checkpoint; when that happens each time, the nodes' "
            "network is the platform's to look at",
        ),
    ),
    (
        _TORCH,
        re.compile(r"No space left on device"),
        (
            UNEXPECTED,
            Reason.DISK_FULL,
            "the pod's disk is full",
            "lower train.lora_rank, or ask for disk",
        ),
    ),
    (_TORCH, re.compile(r"DefaultCPUAllocator|Cannot allocate memory"), _HOST_MEMORY),
)


def _from_text(error: BaseException) -> TrainerError | None:
    """Recognize what PyTorch says; a plain ValueError of an environment never counts as a GPU."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = f"{type(error).__name__}: {error}"
    for raised_as, pattern, (code, reason, message, hint) in _KNOWN_TEXTS:
        if kinds & raised_as and pattern.search(said):
            return TrainerError(code, reason, f"{message} ({first_line(str(error))})", hint)
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
        Reason.ENVIRONMENT_FAILED,
        f"the environment failed in {place} with {sentence(error)}",
        "correct the environment and publish it again with flash env push",
    )


def _unexpected(error: BaseException) -> TrainerError:
    return TrainerError(
        UNEXPECTED,
        Reason.UNEXPECTED,
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
    """Return ``text`` within the limits of a termination message: characters, and bytes of JSON."""
    if len(text) <= MESSAGE_LIMIT and _json_bytes(text) <= _MESSAGE_BYTES:
        return text
    room = _MESSAGE_BYTES - len("…".encode())
    longest = bisect_right(range(MESSAGE_LIMIT), room, key=lambda end: _json_bytes(text[:end]))
    return text[: longest - 1] + "…"


def _json_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode())


def diverged(name: str, value: float, step: int) -> TrainerError | None:
    """Return the end of a run whose loss or gradient is no number any more."""
    if math.isfinite(value):
        return None
    return TrainerError(
        Exit.DIVERGED,
        Reason.DIVERGED,
        f"{name} is {value} at step {step}: training diverged",
        "lower train.learning_rate; the checkpoints before this step are intact",
    )
