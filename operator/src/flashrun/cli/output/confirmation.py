"""The question that a command asks before it deletes something."""

import sys

import typer

from flashrun.cli.output.failure import UsageFailure


def confirm_deletion(name: str, question: str) -> None:
    """Ask whether ``name`` may be deleted.

    Raises:
        UsageFailure: the answer is no, or standard input is not a terminal.
    """
    if not sys.stdin.isatty():
        raise UsageFailure(
            f"deleting {name} needs a confirmation, and standard input is not a terminal",
            "add -y",
        )
    if not typer.confirm(question, err=True):
        raise UsageFailure("nothing was deleted")
