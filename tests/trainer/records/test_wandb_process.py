"""Weights & Biases: what is sent to it, and that its failures do not disturb the run.

The library is the real one. Offline it writes a file, which is read here; the servers below are
fakes that refuse, or that never answer.
"""

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import ResolvedWandb
from flashrun_trainer.records import wandb_process
from flashrun_trainer.records.wandb_process import Tracker
from tests.trainer.pods import Workshop, evaluated, resolved, rows, sums

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """The variables of a pod whose Weights & Biases writes to a file."""
    return {**os.environ, "WANDB_API_KEY": KEY, "WANDB_MODE": "offline", "HOME": str(tmp_path)}


def records(folder: Path) -> Iterator[Any]:
    """The records of the one run that was written below ``folder``.

    The file is a log of LevelDB's kind: blocks of 32 KiB, in each of them fragments with a
    checksum, a length and a type: whole, or the first, a middle or the last part of a record.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def history(folder: Path) -> list[dict[str, float]]:
    """The metrics that were written below ``folder``, one per step."""
    rows = (record.history.item for record in records(folder) if record.HasField("history"))
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row}
        for row in rows
    ]


def track(environment: dict[str, str], folder: Path) -> Tracker:
    """A run of two steps, from its beginning to its end."""
    tracker = Tracker(resolved("grpo"), environment, folder)
    tracker.log(1, {"reward": 0.25, "env/digits": 0.5})
    tracker.log(2, {"reward": 0.75})
    tracker.finish(0)
    return tracker


def test_a_run_is_sent_under_its_project_and_name_with_its_metrics(
    offline: dict[str, str], tmp_path: Path
):
    labels = ResolvedWandb(project="sums", run_name="first try")
    run = resolved("grpo").model_copy(update={"wandb": labels})
    tracker = Tracker(run, offline, tmp_path)
    tracker.log(1, {"reward": 0.25, "env/digits": 0.5})
    tracker.log(2, {"reward": 0.75})
    tracker.finish(3)

    found = list(records(tmp_path))
    (told,) = (record.run for record in found if record.HasField("run"))
    assert (told.project, told.display_name, told.run_id) == ("sums", "first try", run.run.uid)
    config = {item.key: json.loads(item.value_json) for item in told.config.update}
    assert config["train"]["group_size"] == 4
    assert "params" not in config["environment"]
    first, second = history(tmp_path)
    assert (first["_step"], first["reward"], first["env/digits"]) == (1, 0.25, 0.5)
    assert (second["_step"], second["reward"]) == (2, 0.75)
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [3]


def test_without_a_key_nothing_is_started(tmp_path: Path):
    track({**os.environ, "WANDB_API_KEY": ""}, tmp_path)
    assert not (tmp_path / "wandb").exists()


def test_a_run_sends_its_metrics_step_by_step(
    workshop: Workshop, offline: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.setenv(name, offline[name])
    held_out = rows(("What is 1 plus 70?", "71"), ("What is 2 plus 70?", "72"))
    run = resolved("sft", max_steps=3, save_every=2, eval=evaluated(max_examples=2))
    pod = workshop.pod(run, sums(eval=held_out))
    assert pod.train() == Exit.DONE
    sent = history(pod.inside.work)
    assert [row["_step"] for row in sent] == [0, 1, 2, 3]  # an evaluation is in the row of its step
    assert [row["loss"] for row in sent[1:]] == pod.values("loss")
    for name in ("eval/score", "eval/loss"):
        assert [row[name] for row in sent if name in row] == pod.values(name)
    assert [row["_step"] for row in sent if "eval/score" in row] == [0, 2, 3]


class Refusing(BaseHTTPRequestHandler):
    """A fake server that accepts no key."""

    def do_POST(self) -> None:
        body = b'{"errors": [{"message": "user is not logged in"}]}'
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def refusing() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent() -> Iterator[str]:
    """A fake server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def absent() -> Iterator[str]:
    """The address of a server that is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    yield address


@pytest.mark.parametrize("key", [KEY, "not a key"], ids=["key", "malformed key"])
@pytest.mark.parametrize("server", [refusing, silent, absent])
def test_a_failing_server_delays_the_end_only_briefly_and_no_key_is_printed(
    offline: dict[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    server: Any,
    key: str,
):
    monkeypatch.setattr(wandb_process, "_FINISH_TIMEOUT_SECONDS", 5.0)
    with server() as address:
        environment = {**offline, "WANDB_MODE": "online", "WANDB_BASE_URL": address}
        tracker = track({**environment, "WANDB_API_KEY": key}, tmp_path)
    assert tracker._process is not None
    assert tracker._process.poll() is not None
    printed = "".join(capfd.readouterr())
    assert key not in printed


@pytest.mark.parametrize(
    "module",
    [
        "raise RuntimeError('broken')",
        "import os; os._exit(9)",
        "import time; time.sleep(1000)",
        "def init(**_): raise RuntimeError('broken')",
    ],
    ids=["breaks on import", "crashes", "hangs", "breaks at the beginning"],
)
def test_a_failing_library_does_not_disturb_the_run(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    module: str,
):
    """The library is a fake that is found before the real one."""
    (tmp_path / "wandb.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    # A process that hangs is waited for as long; another may begin slowly on a busy machine.
    patience = 3.0 if "sleep" in module else 60.0
    monkeypatch.setattr(wandb_process, "_FINISH_TIMEOUT_SECONDS", patience)
    tracker = track({**os.environ, "WANDB_API_KEY": KEY}, tmp_path)
    assert tracker._process is not None
    assert tracker._process.poll() is not None
    if "broken" in module:
        assert "Weights & Biases is off" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("raise RuntimeError('broken\\nlong trace')", "RuntimeError: broken"),
        ("import os; os._exit(9)", "its process ended with code 9"),
        (
            "Settings = dict\ndef init(**_): raise ValueError('Invalid project')",
            "ValueError: Invalid project",
        ),
    ],
)
def test_why_nothing_is_sent_is_reported_once_while_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, sentence: str
):
    (tmp_path / "wandb.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    problems: SimpleQueue[str] = SimpleQueue()
    environment = {**os.environ, "WANDB_API_KEY": KEY}
    tracker = Tracker(resolved("grpo"), environment, tmp_path, problems.put)
    tracker.log(1, {"reward": 0.25})
    problem = problems.get(timeout=60)
    assert problem.startswith(sentence)
    assert "trace" not in problem
    tracker.finish(0)
    assert problems.empty()


def test_metrics_are_taken_without_waiting_for_a_library_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """More lines than a pipe holds: if anything waited, this would never end."""
    (tmp_path / "wandb.py").write_text("import time; time.sleep(1000)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(wandb_process, "_FINISH_TIMEOUT_SECONDS", 0.1)
    tracker = Tracker(resolved("sft"), {**os.environ, names.WANDB_API_KEY: KEY}, tmp_path)
    for step in range(2000):
        tracker.log(step, {f"metric {number}": number / 7 for number in range(20)})
    tracker.finish(0)
    assert tracker._process is not None
    assert tracker._process.poll() is not None
