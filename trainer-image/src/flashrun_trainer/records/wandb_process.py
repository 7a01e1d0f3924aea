"""Weights & Biases: a copy of the metrics for users with an account. It never stops a run.

Its library runs in a separate process, which reads one JSON object per line: first the arguments
of ``wandb.init``, then the metrics of one step per line, last the exit code. If the library
crashes, hangs or waits for the network, training continues; at the end of the run it gets a few
seconds to send the rest. Why it sends nothing any more comes back through a pipe.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from flashrun.api import names
from flashrun.api.records import ResolvedRun
from flashrun_trainer.pod.trainer_errors import format_error

log = logging.getLogger(__name__)

_FINISH_TIMEOUT_SECONDS: Final = 20.0
"""How long the end of a run waits until the rest is sent."""
_LONGEST_PROBLEM: Final = 2000
_INIT_TIMEOUT_SECONDS: Final = 600.0
"""How long the library tries an unreachable server before it gives up."""
_CONFIG: Final[dict[str, Any]] = {
    "run": True,
    "model": True,
    "algorithm": True,
    "thinking": True,
    "environment": {"id", "digest", "split"},
    "train": True,
    "seed": True,
    "scale": True,
}
"""The part of the spec that is sent; parameters and variables are left out: they may be private."""


class Tracker:
    """Sends metrics to Weights & Biases if there is an API key; no method but ``finish`` blocks."""

    def __init__(
        self,
        run: ResolvedRun,
        environment: Mapping[str, str],
        folder: Path,
        report_problem: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """Start the process; ``report_problem`` gets one sentence when it has ended too early."""
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._process: subprocess.Popen[str] | None = None
        self._report_problem = report_problem
        self._finishing = threading.Event()
        if not environment.get(names.WANDB_API_KEY):
            return
        problems, pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(pipe)],
                # The child finds the same modules as this process.
                env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.PIPE,
                pass_fds=[pipe],
                text=True,
            )
        except OSError as error:
            log.warning("Weights & Biases is off: %s", error)
            os.close(problems)
            report_problem(f"its process cannot start: {error}")
            return
        finally:
            os.close(pipe)
        threading.Thread(target=self._feed, name="tracking", daemon=True).start()
        threading.Thread(
            target=self._watch, args=[problems], name="tracking-problems", daemon=True
        ).start()
        self._put(
            project=run.wandb.project,
            name=run.wandb.run_name,
            id=run.run.uid,
            dir=str(folder),
            config=run.model_dump(mode="json", include=_CONFIG),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the metrics of one step."""
        self._put(step=step, values=dict(values))

    def finish(self, exit_code: int) -> None:
        """Send the rest, as far as that is possible in a few seconds."""
        if self._process is None:
            return
        self._finishing.set()
        self._put(exit_code=exit_code)
        self._lines.put(None)
        try:
            self._process.wait(_FINISH_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning(
                "Weights & Biases did not receive all metrics in time: flash metrics prints them"
            )
            self._process.kill()
            self._process.wait()

    def _watch(self, problems: int) -> None:
        """Report why the process has ended, unless the run has ended before."""
        assert self._process is not None
        with open(problems, errors="replace") as pipe:
            sentence = pipe.read(_LONGEST_PROBLEM)
        code = self._process.wait()
        if sentence:
            self._report_problem(sentence)
        elif not self._finishing.is_set():
            self._report_problem(f"its process ended with code {code}")

    def _put(self, **message: Any) -> None:
        if self._process is not None:
            self._lines.put(json.dumps(message) + "\n")

    def _feed(self) -> None:
        """Write the lines to the process; an error only means that it has ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(OSError), self._process.stdin as pipe:
            for line in iter(self._lines.get, None):
                pipe.write(line)
                pipe.flush()


def send(lines: Iterable[str]) -> None:
    """Send the messages in ``lines`` with the library; runs in the separate process."""
    import wandb

    messages = (json.loads(line) for line in lines)
    run = wandb.init(
        **next(messages),
        resume="allow",
        settings=wandb.Settings(
            init_timeout=_INIT_TIMEOUT_SECONDS,
            # The log is stored elsewhere, redacted; code and machine may be private.
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            quiet=True,
        ),
    )
    log.info("Weights & Biases: %s", run.url or f"offline in {run.dir}")
    for message in messages:
        if "exit_code" in message:
            run.finish(exit_code=message["exit_code"])
            return
        run.log(message["values"], step=message["step"])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        send(sys.stdin)
    except Exception as error:
        log.warning("Weights & Biases is off from now on: %s", error)
        with suppress(OSError), open(int(sys.argv[1]), "w") as pipe:
            pipe.write(format_error(error))
    sys.stderr.flush()
    # Its library has threads and hooks that could keep the process.
    os._exit(0)
