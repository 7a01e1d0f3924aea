"""The only place where bytes that somebody else wrote become a record."""

import re
from datetime import datetime
from typing import Final, TypeVar

from pydantic import ValidationError
from typing_extensions import Buffer

from flashrun.api.base import Record, error_sentences
from flashrun.api.bounds import CLOCK_TOLERANCE, LATEST, clean_text

_PROBLEM_LIMIT: Final = 200
"""Longest description of a problem, in characters: it may contain a key of the record."""

_COPIED_BYTES: Final = 256 * 1024
_MARKS: Final = (b",", b"[", b"{")
_STRING_OR_MARK = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[,\[{]', re.DOTALL)
_QUOTE: Final = ord('"')

RecordModel = TypeVar("RecordModel", bound=Record)


class RecordRefused(ValueError):
    """The content is not a valid record; ``str`` names the field and the problem."""


def read_record(
    content: bytes | str, model: type[RecordModel], now: datetime | None = None
) -> RecordModel:
    """Return the record in ``content``, which has at most ``model.max_bytes`` bytes and
    ``model.max_values`` values.

    ``now`` is the reader's clock: no time in the record may be more than a day ahead of it. Records
    without times need none.

    Raises:
        RecordRefused: for everything that is wrong with the content.
    """
    if len(content) > model.max_bytes:
        raise RecordRefused(f"is longer than {model.max_bytes} bytes")
    if has_more_values(content, model.max_values):
        raise RecordRefused(f"has more than {model.max_values:,} values")
    context = {} if now is None else {LATEST: now + CLOCK_TOLERANCE}
    try:
        return model.model_validate_json(content, context=context)
    except ValidationError as error:
        problem = next(error_sentences(error, whole="its text"))
    except (ValueError, ArithmeticError, RecursionError) as error:
        problem = f"its text: {type(error).__name__}"
    problem = clean_text(problem[: 2 * _PROBLEM_LIMIT])
    if len(problem) > _PROBLEM_LIMIT:
        half = _PROBLEM_LIMIT // 2
        problem = f"{problem[:half]}…{problem[-half:]}"
    raise RecordRefused(problem)


def has_more_values(content: bytes | str | Buffer, limit: int) -> bool:
    """Return whether there may be more than ``limit`` JSON values, without parsing them.

    A value is the first one or follows a mark; marks within strings are looked for only where there
    are many. Content with more strings than that many values can have is not JSON.
    """
    text = memoryview(content.encode(errors="replace") if isinstance(content, str) else content)
    # Of a short text a copy is cheap, and bytes count the marks a hundred times as fast.
    copied = bytes(text) if len(text) <= _COPIED_BYTES else None
    if copied is not None and sum(map(copied.count, _MARKS)) < limit:
        return False
    marks = 0
    for number, match in enumerate(_STRING_OR_MARK.finditer(text)):
        marks += text[match.start()] != _QUOTE
        if marks >= limit or number >= 3 * limit:
            return True
    return False
