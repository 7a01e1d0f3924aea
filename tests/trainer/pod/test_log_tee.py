"""The attempt's log: complete, redacted, bounded."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flashrun_trainer.pod import log_tee
from flashrun_trainer.pod.log_tee import Tee
from flashrun_trainer.pod.redaction import Redactor

REDACT = Redactor(("canary-1234",))


def test_everything_that_is_printed_is_kept_and_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with Tee(tmp_path / "log", REDACT) as tee:
        os.write(1, b"to stdout\n")
        os.write(2, b"to stderr\n")
        subprocess.run([sys.executable, "-c", "print('a child')"], check=True)
        tee.sync()
        kept = tee.path.read_text()
    assert kept == "to stdout\nto stderr\na child\n"
    assert capfd.readouterr().out == kept


def test_secrets_are_in_neither(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with Tee(tmp_path / "log", REDACT) as tee:
        os.write(1, b"the key is canary-")
        os.write(1, b"1234, it says\n")
    assert tee.path.read_text() == "the key is ***, it says\n"
    assert capfd.readouterr().out == "the key is ***, it says\n"


def test_a_secret_where_a_very_long_line_is_broken_is_in_neither(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    words = b"word " * 13_107  # a byte less than the longest line
    with Tee(tmp_path / "log", REDACT) as tee:
        for part in (words + b"canary", b"-1234 and ", words, b"so on\n"):
            os.write(1, part)
    kept = tee.path.read_text()
    assert "canary" not in kept
    assert "-1234" not in kept
    assert kept.replace("\n", "").count("word ") == 2 * 13_107
    assert kept.endswith("so on\n")
    assert capfd.readouterr().out == kept


@pytest.mark.parametrize("secret", ["canary-1234", "63616e6172792d31323334", "63 61 6E 61 72"])
@pytest.mark.parametrize("cut", [6, -6])
def test_a_secret_where_a_line_without_breaks_is_broken_is_in_neither(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], secret: str, cut: int
):
    line = b"." * (log_tee._LONGEST_LINE + 1)
    with Tee(tmp_path / "log", Redactor((secret,))) as tee:
        os.write(1, line + secret[:cut].encode())
        for _ in range(500):
            if tee.path.stat().st_size:
                break
            time.sleep(0.01)
        os.write(1, secret[cut:].encode() + b".\n")
    kept = tee.path.read_text()
    assert not any(secret[at : at + 6] in kept for at in range(len(secret) - 5))
    assert capfd.readouterr().out == kept


def test_a_full_disk_loses_the_log_but_blocks_no_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with Tee(tmp_path / "log", REDACT) as tee:
        tee._file.close()
        tee._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        for number in range(20_000):  # more than a pipe holds
            os.write(1, b"line %d\n" % number)
    assert capfd.readouterr().out.endswith("line 19999\n")


def test_a_last_line_without_an_end_is_kept(tmp_path: Path):
    with Tee(tmp_path / "log", REDACT) as tee:
        os.write(1, b"no newline")
    assert "no newline" in tee.path.read_text()


def test_a_long_log_keeps_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(log_tee, "LIMIT", 10_000)
    with Tee(tmp_path / "log", REDACT) as tee:
        for number in range(5_000):
            os.write(1, b"line %d\n" % number)
    text = tee.path.read_text()
    assert len(text) < 11_000
    assert text.endswith("line 4999\n")
    assert "the beginning of this log was left out" in text
