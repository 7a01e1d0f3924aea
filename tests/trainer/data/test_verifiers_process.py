"""The process of an environment of verifiers: its time limits, its end, and what it can see."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.verifiers_packages import VerifiersEntry
from flashrun_trainer.data.calls import CallTimeoutError
from flashrun_trainer.data.messages import SampledAnswer
from flashrun_trainer.data.verifiers_process import (
    VerifiersEpisode,
    VerifiersFailure,
    VerifiersProcess,
)
from tests.trainer.pods import ROOT, is_running
from tests.trainer.verifiers_sources import TALK

pytestmark = pytest.mark.verifiers

Start = Callable[..., VerifiersProcess]


@pytest.fixture
def start(verifiers_python: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a process with an environment of this code."""
    processes: list[VerifiersProcess] = []

    def start(source: str = TALK, **params: Any) -> VerifiersProcess:
        (tmp_path / "talk.py").write_text(source)
        entry = VerifiersEntry("talk")
        processes.append(VerifiersProcess(verifiers_python, tmp_path, entry, params, "train"))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


def answer(text: str) -> dict[str, Any]:
    return SampledAnswer(text).to_request(1, "")


def answered(episode: VerifiersEpisode, text: str) -> Any:
    """What a call with this answer returns or raises."""
    try:
        return episode.call("answer", answer=answer(text))
    except Exception as error:
        return error


def test_a_call_that_hangs_ends_its_episode_alone(start: Start) -> None:
    process = start(seconds=2.0)
    for way in ("sleep", "block"):
        check_hanging(process, way)


def check_hanging(process: VerifiersProcess, way: str) -> None:
    hanging, other = process.start_episode(0)[0], process.start_episode(0)[0]
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(answered(hanging, way)))
    began = time.monotonic()
    thread.start()
    time.sleep(0.3)
    # Where the event loop is blocked, this call has to wait, and its own time does not run.
    reply = answered(other, "hello")
    thread.join()
    assert reply == {"messages": [{"role": "user", "content": "You said hello."}], "done": False}
    assert isinstance(results[0], CallTimeoutError)
    assert "within reward_timeout_seconds = 2" in str(results[0])
    assert time.monotonic() - began < 30
    assert isinstance(answered(other, "stop"), dict)


def test_a_process_that_dies_fails_its_episodes_and_is_started_again(start: Start) -> None:
    process = start()
    lost, opening = process.start_episode(1)
    threading.Timer(0.3, os.kill, [process.process_id, signal.SIGKILL]).start()
    error = answered(lost, "sleep")
    assert isinstance(error, VerifiersFailure)
    assert str(error) == "the process of the environment has ended, with signal SIGKILL"
    assert str(answered(lost, "hello")) == "the process of the environment has ended"
    again, same_opening = process.start_episode(1)
    assert same_opening == opening
    assert isinstance(answered(again, "hello"), dict)


TRAINER = """
import os, pathlib, signal, sys, threading
from flashrun.api.verifiers_packages import VerifiersEntry
from flashrun_trainer.data.verifiers_process import VerifiersProcess

python, folder = map(pathlib.Path, sys.argv[1:])
process = VerifiersProcess(python, folder, VerifiersEntry("talk"), {}, "train")
print(process.process_id, flush=True)
signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_process_ends_with_the_trainer(
    verifiers_python: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "talk.py").write_text(TALK)
    path = os.pathsep.join(str(ROOT / folder) for folder in ("operator/src", "trainer-image/src"))
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(verifiers_python), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    ) as trainer:
        assert trainer.stdout is not None
        pid = int(trainer.stdout.readline())
        began = time.monotonic()
        trainer.send_signal(number)
        trainer.wait()
        while is_running(pid):
            assert time.monotonic() - began < 5
            time.sleep(0.05)


LOOKING = """
import importlib.util
import os

from datasets import Dataset

import verifiers as vf


def load_environment():
    seen = [name for name in ("flashrun", "freesolo", "torch") if importlib.util.find_spec(name)]
    own = [name for name in os.environ if name.startswith("FLASHRUN_")]
    rows = [{"question": "?", "info": {"seen": seen, "own": own, "key": os.environ["MY_KEY"]}}]
    return vf.SingleTurnEnv(dataset=Dataset.from_list(rows))
"""


def test_the_process_sees_the_runs_variables_and_none_of_the_trainers_packages(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "operator/src"))
    monkeypatch.setenv("FLASHRUN_SPEC", "/etc/flashrun/spec")
    monkeypatch.setenv("MY_KEY", "opensesame")
    [row] = start(LOOKING).description["rows"]
    assert row["row"]["info"] == {"seen": [], "own": [], "key": "opensesame"}


def test_an_interpreter_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(VerifiersFailure, match="no-python cannot be started"):
        VerifiersProcess(tmp_path / "no-python", tmp_path, VerifiersEntry("talk"), {}, "train")
