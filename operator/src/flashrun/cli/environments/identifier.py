"""Environment ids as people type them: ORG/NAME, or ORG/NAME@DIGEST for one version."""

import re
from typing import Annotated, Final, NamedTuple

import typer

from flashrun.api.config import is_environment_id
from flashrun.cli.output.failure import UsageFailure

_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}")

Identifier = Annotated[
    str, typer.Argument(help="Environment, as in your-org/your-env.", metavar="ID")
]


class EnvironmentVersion(NamedTuple):
    """One version of an environment."""

    identifier: str
    digest: str
    """SHA-256 of its package in hex, or the beginning of it; empty for the newest version."""


def check_identifier(text: str) -> str:
    """Return ``text`` if it is the id of an environment; raises ``UsageFailure`` otherwise."""
    if not is_environment_id(text):
        raise UsageFailure(
            f"{text!r} is not an environment: use ORG/NAME of letters, digits, '.', '_' and '-'"
        )
    return text


def parse_version(text: str) -> EnvironmentVersion:
    """Read ID or ID@DIGEST; raises ``UsageFailure``."""
    identifier, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise UsageFailure(
            f"{digest!r} is not a digest: give at least its first 8 hex digits, "
            f"as in {identifier}@3fa9c1d2"
        )
    return EnvironmentVersion(check_identifier(identifier), digest)
