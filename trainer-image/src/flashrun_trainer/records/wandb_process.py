"""Weights & Biases: a copy of the metrics for those who have an account; never a reason to stop.

Its library runs in a process of its own, which reads lines of JSON: the first one says how to
begin, the last one how the run ended, and those between are the metrics of a step each. Whatever
it does there, crash, hang or wait for a network, training goes on; at the end it has seconds left.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from flashrun.api import names
from flashrun.api.records import ResolvedRun

log = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 20.0
"""How long the end of a run waits for what is still to be sent."""
_BEGIN_SECONDS: Final = 600.0
"""How long an unreachable server is tried before the run goes on without it."""
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
"""What the server is told of a run; parameters and variables may be nobody else's business."""


class Tracker:
    """Sends metrics when there is a key, without ever making its caller wait."""

    def __init__(self, run: ResolvedRun, environment: Mapping[str, str], folder: Path) -> None:
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._process: subprocess.Popen[str] | None = None
        if not environment.get(names.WANDB_API_KEY):
            return
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                # It finds the modules that this process finds.
                env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            log.warning("Weights & Biases is off: %s", error)
            return
        threading.Thread(target=self._feed, name="tracking", daemon=True).start()
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
        """Send what is left, as far as that is possible in a few seconds."""
        if self._process is None:
            return
        self._put(exit_code=exit_code)
        self._lines.put(None)
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("Weights & Biases did not take everything in time; the run's files have it")
            self._process.kill()
            self._process.wait()

    def _put(self, **message: Any) -> None:
        if self._process is not None:
            self._lines.put(json.dumps(message) + "\n")

    def _feed(self) -> None:
        """Hand over the lines; once the other process is gone, nobody misses them."""
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(OSError), self._process.stdin as pipe:
            for line in iter(self._lines.get, None):
                pipe.write(line)
                pipe.flush()


def send(lines: Iterable[str]) -> None:
    """Do what the lines say, with the library; runs in the process of its own."""
    import wandb

    messages = (json.loads(line) for line in lines)
    run = wandb.init(
        **next(messages),
        resume="allow",
        settings=wandb.Settings(
            init_timeout=_BEGIN_SECONDS,
            # The log has a place of its own, redacted; code and machine are nobody's business.
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
        log.warning("Weights & Biases is off from here on: %s", error)
    sys.stderr.flush()
    # Its library has threads and hooks that could keep the process.
    os._exit(0)
