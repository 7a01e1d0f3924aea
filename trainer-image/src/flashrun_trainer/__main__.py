"""``python -m flashrun_trainer model|packages|train|serve``: the entry point of every container.

``rank`` is the command of the processes that ``train`` starts when a run has several.
"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from flashrun.api import pod

if TYPE_CHECKING:
    from flashrun_trainer.pod.mounts import PodMounts

    Work = Callable[[PodMounts], int]


def _load_model() -> "Work":
    from flashrun_trainer.init import model_download
    from flashrun_trainer.init.init_container import run_init_container

    describe = model_download.describe_activity
    return partial(run_init_container, pod.MODEL_CONTAINER, model_download.run, describe)


def _load_packages() -> "Work":
    from flashrun_trainer.init import packages
    from flashrun_trainer.init.init_container import run_init_container

    describe = packages.describe_activity
    return partial(run_init_container, pod.PACKAGES_CONTAINER, packages.run, describe)


def _load_train() -> "Work":
    from flashrun_trainer.launch import launcher

    return launcher.run


def _load_rank() -> "Work":
    from flashrun_trainer import run_attempt

    return run_attempt.run_rank


def _load_serve() -> "Work":
    from flashrun_trainer.serving import server

    return server.run


COMMANDS: Final = {
    pod.MODEL_CONTAINER: _load_model,
    pod.PACKAGES_CONTAINER: _load_packages,
    pod.TRAIN_COMMAND: _load_train,
    pod.RANK_COMMAND: _load_rank,
    pod.SERVE_COMMAND: _load_serve,
}
"""What imports the work of a container, by its command: nothing that only others need."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the work of one container, and return its exit code."""
    # Linux drops a signal to process 1 of a container while it has no handler, and the imports take
    # a second. A blocked signal is kept.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    from flashrun_trainer.pod import unused_libraries
    from flashrun_trainer.pod.quick_imports import paused_collector

    parser = argparse.ArgumentParser(prog="flashrun_trainer", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    load = COMMANDS[parser.parse_args(arguments).command]
    with paused_collector():
        with unused_libraries.hidden(unused_libraries.OF_STORAGE):
            from flashrun_trainer.pod.mounts import PodMounts
        from flashrun.api.exits import Exit
        from flashrun_trainer.pod.trainer_errors import InterruptedBeforeTraining
        from flashrun_trainer.records import termination

        work = load()
    # Until the trainer installs its own handler, there is nothing to save, and it is not worth
    # waiting for a download.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(Exit.INTERRUPTED_UNSAVED))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    set_up_logging()
    # Progress bars are for terminals; this log is uploaded every few seconds.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # TRL calls the hook experimental that plays episodes of several turns.
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    mounts = PodMounts.from_environment(os.environ)
    try:
        return work(mounts)
    except (InterruptedBeforeTraining, Exception) as error:
        # Python would print the traceback as it is, with secrets.
        return termination.end_with_error(error, mounts, termination.pod_redactor(mounts))


def set_up_logging() -> None:
    """Log our own messages from INFO on, those of libraries from WARNING on, with times in UTC."""
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
    # Exit without waiting for threads of an environment that never end.
    os._exit(code)
