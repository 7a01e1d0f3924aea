"""Names of models in the mirror as people type them: ORG/NAME, and a revision."""

import re
from typing import Annotated, Final

import typer

from flashrun.cli.output.failure import UsageFailure

_MODEL: Final = re.compile(r"(?=.{3,128}$)[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)

ModelName = Annotated[str, typer.Argument(help="Model, as in your-org/model.", metavar="ID")]


def check_model_name(text: str) -> str:
    """Return ``text`` if it can be the id of a model; raises ``UsageFailure`` otherwise."""
    if not _MODEL.fullmatch(text):
        raise UsageFailure(
            f"{text!r} is not the id of a model: use ORG/NAME of letters, digits, '.', '_' and '-'"
        )
    return text


def check_revision(text: str) -> str:
    """Return ``text`` if it can be a revision; raises ``UsageFailure`` otherwise."""
    if not _REVISION.fullmatch(text):
        raise UsageFailure(
            f"{text!r} is not a revision: use up to 64 letters, digits, '.', '_' and '-'"
        )
    return text
