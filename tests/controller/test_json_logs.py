"""Log lines: JSON, without secrets."""

import asyncio
import io
import json
import logging
import sys

import pytest

from flashrun.controller import json_logs
from flashrun.controller.storage_threads import call_storage


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
            with json_logs.about("a/b"):
                json_logs.note_uid("u")
                logging.getLogger("x").exception("with %s", "AKIAABCDEFGHIJKLMNOP")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    line = json.loads(stream.getvalue())
    assert line["uid"] == "u"
    assert (line["level"], line["run"], line["message"]) == ("error", "a/b", "with ***")
    assert "hf_" not in line["error"]
    assert "ValueError: token *** was refused" in line["error"]


async def test_lines_of_a_pass_name_its_run_also_from_the_threads_of_storage():
    formatter, lines = json_logs._Lines(), list[dict[str, str]]()

    def log(message: str) -> None:
        record = logging.LogRecord("x", logging.INFO, "", 0, message, (), None)
        lines.append(json.loads(formatter.format(record)))

    async def make_pass(name: str) -> None:
        with json_logs.about(f"team/{name}"):
            log("before")
            json_logs.note_uid(f"uid of {name}")
            await call_storage(log, "in a thread")
            log("after")

    await asyncio.gather(make_pass("one"), make_pass("two"))
    log("outside")

    seen = {(line.get("run"), line.get("uid"), line["message"]) for line in lines}
    expected = {(None, None, "outside")}
    for name in ("one", "two"):
        run, uid = f"team/{name}", f"uid of {name}"
        expected |= {(run, None, "before"), (run, uid, "in a thread"), (run, uid, "after")}
    assert seen == expected
