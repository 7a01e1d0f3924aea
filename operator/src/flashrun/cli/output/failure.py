"""Failures of commands: one sentence, a hint and an exit code."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line; scripts rely on them."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    INTERRUPTED = 130


class Failure(Exception):
    """Ends a command with one sentence on standard error.

    ``hint`` says what to do. Commands in it begin with "flash"; they are printed as the user calls
    the program.
    """

    code = ExitCode.RUN_FAILED

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint


class UsageFailure(Failure):
    """The command or the config is wrong, and nothing was done."""

    code = ExitCode.USAGE


class NotFoundFailure(Failure):
    """What the command names does not exist."""

    code = ExitCode.NOT_FOUND
