"""Trainer pods as separate processes that start quickly.

They are forked from a server that has imported PyTorch and the training stack, seconds that a test
with a dozen attempts would otherwise pay a dozen times. Where a pod trains with several processes,
its launcher forks them in turn.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import SimpleNamespace
from typing import Any, NoReturn

from tests.trainer.pods import PATIENCE_SECONDS, ROOT, TrainerPod, kill_ranks, ranks_of

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.trainer.preloaded", "tests.trainer.forks"])
_starting = threading.Lock()


@contextmanager
def started(pod: TrainerPod, *, every_state: bool = False) -> Iterator[BaseProcess]:
    """Train in a process that is killed at the end when it still runs.

    With ``every_state``, the state of every save is uploaded. Otherwise a state that waits for the
    uploader is left out when the next one comes, which depends on how busy the machine is.
    """
    (pod.folder / "output").touch()
    process = _context.Process(target=_train, args=(pod, every_state))
    try:
        with _starting, _python_path():
            process.start()
        yield process
    finally:
        kill(process)


@contextmanager
def _python_path() -> Iterator[None]:
    """Let the server, which starts with the first process, find the tests and the trainer."""
    sources = [str(ROOT), str(ROOT / "operator/src"), str(ROOT / "trainer-image/src")]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*sources, *filter(None, [before])])
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def kill(process: BaseProcess) -> None:
    """Kill a container: its first process, and then all others."""
    others = ranks_of(process)
    process.kill()
    kill_ranks(others)
    process.join()


def ended(process: BaseProcess) -> int | None:
    """Wait for the end of a process, and return its exit code."""
    process.join(PATIENCE_SECONDS)
    return process.exitcode


def trained(pod: TrainerPod) -> int | None:
    """Train in a process of its own, and return its exit code."""
    with started(pod) as process:
        return ended(process)


def _train(pod: TrainerPod, every_state: bool) -> None:
    """Be the container: its output, its variables, its entry point, its exit code."""
    from flashrun_trainer.launch import workers

    if every_state:
        _leave_out_no_state()
    output = os.open(pod.folder / "output", os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(pod.environment)
    changed = vars(subprocess) | {"Popen": _forked}
    workers.subprocess = SimpleNamespace(**changed)  # type: ignore[assignment]
    _run("train")


def _leave_out_no_state() -> None:
    """Let a save wait until the uploader has begun with the state of the save before."""
    from flashrun_trainer.records.checkpoint_uploads import Uploader

    put = Uploader.put

    def put_later(self: Uploader, snapshot: Any, urgent: bool = False) -> None:
        while not urgent and self._state is not None and self.error is None:
            time.sleep(0.01)
        put(self, snapshot, urgent)

    Uploader.put = put_later  # type: ignore[method-assign]


def _forked(
    command: Sequence[str], env: Mapping[str, str], **settings: Any
) -> subprocess.Popen[bytes]:
    """Start a process like the launcher does, but forked, with everything imported already."""

    def become() -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # What the launcher holds open, and what tells it that a program has begun.
        os.closerange(3, 1024)
        # It would close its number later, when something else has that.
        tracker: Any = resource_tracker._resource_tracker
        tracker._fd = tracker._pid = None
        os.environ.clear()
        os.environ.update(env)
        _run(command[-1])

    return subprocess.Popen(command, preexec_fn=become, **settings)


def _run(container: str) -> NoReturn:
    from flashrun_trainer.__main__ import main

    code = main([container])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
