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
from typing import Final

from flashrun.spec.outcome import Exit
from flashrun_trainer import ending, launch, model, packages, train
from flashrun_trainer.failures import InterruptedBeforeTraining
from flashrun_trainer.pod import Pod

COMMANDS: Final[dict[str, Callable[[Pod], int]]] = {
    "model": partial(ending.guarded, model.run),
    "packages": partial(ending.guarded, packages.run),
    "train": launch.run,
    "rank": train.rank,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one container's work and return its exit code."""
    parser = argparse.ArgumentParser(prog="flashrun_trainer", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    command = parser.parse_args(arguments).command
    set_up_logging()
    # Progress bars are for terminals; a log that is uploaded every few seconds has no use for them.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Episodes of several turns are played by a hook of TRL that it calls experimental.
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    # Linux keeps SIGTERM from the first process of a container unless it has a handler. Until
    # training sets its own there is nothing to save, and no download is worth waiting for.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(Exit.INTERRUPTED_UNSAVED))
    try:
        return COMMANDS[command](Pod.from_environment(os.environ))
    except InterruptedBeforeTraining:
        return Exit.INTERRUPTED_UNSAVED


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
