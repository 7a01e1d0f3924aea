"""Log lines: JSON, without secrets."""

import io
import json
import logging
import sys

import pytest

from flashrun.controller import json_logs


def test_log_lines_are_json_without_secrets(monkeypatch: pytest.MonkeyPatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        json_logs.set_up()
        try:
            raise ValueError("token hf_abcdefghijklmnopqrstuvwxyz was refused")
        except ValueError:
            logging.getLogger("x").exception(
                "with %s", "AKIAABCDEFGHIJKLMNOP", extra={"run": "a/b"}
            )
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    line = json.loads(stream.getvalue())
    assert (line["level"], line["run"], line["message"]) == ("error", "a/b", "with ***")
    assert "hf_" not in line["error"]
    assert "ValueError: token *** was refused" in line["error"]
