"""Names of models in the mirror as people type them: ORG/NAME, and a revision."""

from typing import Annotated

import typer

from flashrun.api import names
from flashrun.cli.output.failure import UsageFailure

ModelName = Annotated[str, typer.Argument(help="Model, as in your-org/model.", metavar="ID")]


def check_model_name(text: str) -> str:
    """Return ``text`` if it can be the id of a model; raises ``UsageFailure`` otherwise."""
    if not names.is_model_id(text):
        raise UsageFailure(
            f"{text!r} is not the id of a model: use ORG/NAME of letters, digits, '.', '_' and '-'"
        )
    return text


def check_revision(text: str) -> str:
    """Return ``text`` if it can be a revision; raises ``UsageFailure`` otherwise."""
    if not names.is_model_revision(text):
        raise UsageFailure(
            f"{text!r} is not a revision: use up to 64 letters, digits, '.', '_' and '-'"
        )
    return text
