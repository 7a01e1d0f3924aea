"""The bar of a transfer: only on a terminal."""

import io
import sys

import pytest

from flashrun.cli.models.transfer_bar import transfer_bar


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_how_much_is_transferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with transfer_bar("uploading", 4_000_000) as sent:
        sent(1_000_000)
        sent(3_000_000)

    assert "uploading" in screen.getvalue()
    assert "4.0/4.0 MB" in screen.getvalue()


def test_a_pipe_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with transfer_bar("uploading", 10) as sent:
        sent(10)

    assert capsys.readouterr() == ("", "")
