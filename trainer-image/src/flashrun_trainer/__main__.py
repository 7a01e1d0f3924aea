"""``python -m flashrun_trainer model|packages|train``: the entry point of every container.

``rank`` is one of several processes that ``train`` starts by itself.
"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flashrun_trainer.pod.mounts import Pod


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one container's work and return its exit code."""
    # Linux drops a signal to the first process of a container that has no handler for it, and the
    # imports take a second. One that is blocked is kept.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    from flashrun.api.exits import Exit
    from flashrun_trainer.pod.mounts import Pod
    from flashrun_trainer.pod.trainer_errors import InterruptedBeforeTraining
    from flashrun_trainer.records import termination

    work = commands()
    # Until training sets its own handler there is nothing to save, and no download is worth
    # waiting for.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(Exit.INTERRUPTED_UNSAVED))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    parser = argparse.ArgumentParser(prog="flashrun_trainer", description=__doc__)
    parser.add_argument("command", choices=work)
    command = parser.parse_args(arguments).command
    set_up_logging()
    # Progress bars are for terminals; a log that is uploaded every few seconds has no use for them.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Episodes of several turns are played by a hook of TRL that it calls experimental.
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    pod = Pod.from_environment(os.environ)
    try:
        return work[command](pod)
    except (InterruptedBeforeTraining, Exception) as error:
        # Python would print it as it is, secrets and all.
        return termination.failed(error, pod, termination.redactor_of(pod))


def commands() -> "dict[str, Callable[[Pod], int]]":
    """Return the work of every container, by its name."""
    from flashrun.api.pod import (
        MODEL_CONTAINER,
        PACKAGES_CONTAINER,
        RANK_COMMAND,
        TRAIN_COMMAND,
    )
    from flashrun_trainer import model, run_attempt
    from flashrun_trainer.init import packages
    from flashrun_trainer.launch import launcher
    from flashrun_trainer.records import termination

    return {
        MODEL_CONTAINER: partial(termination.guarded, model.run, model.doing),
        PACKAGES_CONTAINER: partial(termination.guarded, packages.run, packages.doing),
        TRAIN_COMMAND: launcher.run,
        RANK_COMMAND: run_attempt.rank,
    }


def set_up_logging() -> None:
    """Log our own steps, and of libraries what they warn about, with times in UTC."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stdout,
        format="%(asctime)sZ %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    logging.getLogger("flashrun_trainer").setLevel(logging.INFO)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of an environment that never end must not keep a finished pod alive.
    os._exit(code)
