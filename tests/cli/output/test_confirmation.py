"""The question before a deletion."""

import sys

import pytest
import typer

from flashrun.cli.output.confirmation import confirm_deletion
from flashrun.cli.output.failure import UsageFailure


def answer(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, agrees: bool) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda question, err: agrees)


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, terminal=False, agrees=True)
    with pytest.raises(UsageFailure, match="deleting org/a needs a confirmation") as caught:
        confirm_deletion("org/a", "Delete org/a?")
    assert caught.value.hint == "add -y"


def test_only_a_yes_lets_the_command_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, terminal=True, agrees=False)
    with pytest.raises(UsageFailure, match="nothing was deleted"):
        confirm_deletion("org/a", "Delete org/a?")
    answer(monkeypatch, terminal=True, agrees=True)
    confirm_deletion("org/a", "Delete org/a?")
