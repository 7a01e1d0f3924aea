"""Weights & Biases: a copy of the metrics for those who have an account; never a reason to stop."""

import importlib
import logging
from collections.abc import Mapping
from typing import Any

from flashrun.spec import names
from flashrun.spec.records import ResolvedRun

log = logging.getLogger(__name__)


class Tracker:
    """Sends metrics while that works, and says once when it does not."""

    def __init__(self, run: ResolvedRun, environment: Mapping[str, str]) -> None:
        self._wandb: Any = None
        if environment.get(names.WANDB_API_KEY):
            self._try(lambda: self._begin(run))

    def _begin(self, run: ResolvedRun) -> None:
        try:
            wandb: Any = importlib.import_module("wandb")
        except ImportError:
            log.warning("WANDB_API_KEY is set, but wandb is not there: add it to [environment].pip")
            return
        wandb.init(
            project=run.wandb.project,
            name=run.wandb.run_name,
            id=run.run.uid,
            resume="allow",
            config=run.model_dump(mode="json", exclude={"environment": {"params"}}),
        )
        self._wandb = wandb

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the metrics of one step."""
        if self._wandb is not None:
            self._try(lambda: self._wandb.log(dict(values), step=step))

    def finish(self, exit_code: int) -> None:
        """Send what is left."""
        if self._wandb is not None:
            self._try(lambda: self._wandb.finish(exit_code=exit_code))

    def _try(self, action: Any) -> None:
        try:
            action()
        except Exception as error:
            log.warning("Weights & Biases is off from here on: %s", error)
            self._wandb = None
