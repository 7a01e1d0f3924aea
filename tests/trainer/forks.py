"""Trainer pods as processes of their own that start at once.

They are forked from a server that has imported PyTorch and the training stack, seconds that a test
with a dozen attempts would otherwise pay a dozen times.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from tests.trainer.pods import PATIENCE_SECONDS, ROOT, TrainerPod

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.trainer.forks", "flashrun_trainer.grpo", "trl", "peft"])


@contextmanager
def started(pod: TrainerPod) -> Iterator[BaseProcess]:
    """Train in a process that is killed at the end when it still runs."""
    sources = [str(ROOT), str(ROOT / "operator/src"), str(ROOT / "trainer-image/src")]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*sources, *filter(None, [before])])
    (pod.folder / "output").touch()
    process = _context.Process(target=_train, args=(pod,))
    try:
        process.start()
        yield process
    finally:
        process.kill()
        process.join()
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def ended(process: BaseProcess) -> int | None:
    """Wait for the end of a process, and return its exit code."""
    process.join(PATIENCE_SECONDS)
    return process.exitcode


def trained(pod: TrainerPod) -> int | None:
    """Train in a process of its own, and return its exit code."""
    with started(pod) as process:
        return ended(process)


def _train(pod: TrainerPod) -> None:
    """Be the container: its output, its variables, its entry point, its exit code."""
    from flashrun_trainer.__main__ import main

    output = os.open(pod.folder / "output", os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(pod.environment)
    code = main(["train"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
