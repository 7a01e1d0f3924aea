"""Bounds of what a tenant or a pod may write: types for the fields of records.

A value outside its bound breaks its record, and only that. Free text is cleaned where it is read:
whatever the writer did, no control character and nothing that looks like a secret gets any further.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from flashrun.api.secret_patterns import redact_secrets

CLOCK_TOLERANCE: Final = timedelta(days=1)
"""How far ahead of the reader's clock a record may be dated."""
LATEST: Final = "latest"
"""Key of the validation context with the latest time that a record may have."""
METRICS_LIMIT: Final = 256
"""Most metrics in one record."""
METRIC_NAME_LIMIT: Final = 256
"""Longest name of a metric, in characters."""
_INT64: Final = 2**63 - 1
_OLDEST_YEAR: Final = 2000


def clean_text(text: str) -> str:
    """Return ``text`` on one line, without control characters and without secrets.

    White space becomes a space. Other characters that do not print, such as escape sequences and
    marks that change the direction of writing, are left out.
    """
    if not text.isprintable():
        characters = (" " if character.isspace() else character for character in text)
        text = "".join(character for character in characters if character.isprintable())
    return redact_secrets(text)


def fit_metrics(values: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that fit into a record: the first ones with finite values.

    Long names are cut.
    """
    finite = [
        (name[:METRIC_NAME_LIMIT], value) for name, value in values.items() if isfinite(value)
    ]
    return dict(finite[:METRICS_LIMIT])


def _zoned(moment: datetime, info: ValidationInfo) -> datetime:
    if moment.utcoffset() is None:
        raise PydanticCustomError("no_time_zone", "has no time zone")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("time_range", "is not a time in UTC") from None
    if moment.year < _OLDEST_YEAR:
        raise PydanticCustomError("time_range", "is before the year 2000")
    latest = (info.context or {}).get(LATEST)
    if latest is not None and moment > latest:
        raise PydanticCustomError("time_ahead", "is more than a day ahead of the clock")
    return moment


ZonedTime = Annotated[datetime, AfterValidator(_zoned)]
"""A time with a zone, kept in UTC."""
Count = Annotated[int, Field(ge=0, le=_INT64)]
"""How many of something."""
Positive = Annotated[int, Field(ge=1, le=_INT64)]
AttemptNumber = Annotated[int, Field(ge=0, le=999_999_999)]
"""Number of an attempt, counted from 1; 0 while there is none."""
ExitCode = Annotated[int, Field(ge=0, le=255)]
Identifier = Annotated[str, StringConstraints(max_length=253, pattern=r"^[!-~]*$")]
"""Name or uid of a Kubernetes object, in ASCII."""
SENTENCE_LIMIT: Final = 256
"""Longest explanation of a value, in characters."""
Sentence = Annotated[str, StringConstraints(max_length=SENTENCE_LIMIT), AfterValidator(clean_text)]
"""An explanation on one line, without secrets."""
STATUS_TEXT_LIMIT: Final = 2048
"""Longest message or hint in a status, in characters."""


def _shorten(text: object) -> object:
    if isinstance(text, str) and len(text) > STATUS_TEXT_LIMIT:
        return text[: STATUS_TEXT_LIMIT - 1] + "…"
    return text


StatusText = Annotated[str, BeforeValidator(_shorten), Field(max_length=STATUS_TEXT_LIMIT)]
"""A message or a hint in a status: a longer one, such as another program's answer, is cut."""
Percent = Annotated[int, Field(ge=0, le=100)]
LAYER_NAMES_LIMIT: Final = 32
"""Most names of layers in one record."""
LAYER_NAME_LIMIT: Final = 64
"""Longest name of a layer, in characters."""
LayerNames = Annotated[
    tuple[
        Annotated[str, StringConstraints(max_length=LAYER_NAME_LIMIT), AfterValidator(clean_text)],
        ...,
    ],
    Field(max_length=LAYER_NAMES_LIMIT, fail_fast=True),
]
"""Last parts of the names of a model's layers."""
MetricName = Annotated[
    str, StringConstraints(max_length=METRIC_NAME_LIMIT), AfterValidator(clean_text)
]
Metrics = Annotated[dict[MetricName, float], Field(max_length=METRICS_LIMIT)]
"""Names and finite values."""
