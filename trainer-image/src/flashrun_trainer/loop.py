"""What both methods share around TRL's training loop: resume, report, save, stop, finish."""

import logging
import math
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback

from flashrun.spec.records import MetricsRow, Progress
from flashrun_trainer import arguments, checkpoints, model
from flashrun_trainer.failures import diverged
from flashrun_trainer.session import Session

log = logging.getLogger(__name__)

_SHOWN: Final = (
    "loss",
    "reward",
    "reward_std",
    "kl",
    "grad_norm",
    "learning_rate",
    "entropy",
    "mean_token_accuracy",
    "epoch",
    "completions/mean_length",
)
"""Metrics that the heartbeat carries; the history has all."""


class Link(TrainerCallback):
    """Connects TRL's loop to the session: values out, requests in."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._began = (0, time.monotonic())
        self.saved_step = 0
        self.extra: dict[str, float] = {}
        """Metrics of the environment for the step that is under way."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock."""
        self.saved_step = state.global_step
        self._began = (state.global_step, time.monotonic())
        self._session.reporter.progress(self._progress(state, {}))
        self._session.reporter.phase("Training")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop or save when somebody asked for it."""
        session = self._session
        if (error := session.reporter.superseded or session.uploader.error) is not None:
            raise error
        if session.reporter.take_save_request():
            control.should_save = True
        if session.interruption.requested:
            control.should_save = True
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **_: Any,
    ) -> None:
        """Append a step to the history; a loss that is no number ends the run."""
        if "loss" not in logs:
            return  # the summary at the end of training
        for name in ("loss", "grad_norm"):
            value = logs.get(name)
            if value is not None and (end := diverged(name, float(value), state.global_step)):
                raise end
        values = {name: float(value) for name, value in logs.items() if _is_number(value)}
        values |= self.extra
        self.extra = {}
        row = MetricsRow(
            step=state.global_step,
            attempt=self._session.attempt.number,
            time=datetime.now(UTC),
            values=values,
        )
        self._session.reporter.metrics(row)
        self._session.tracker.log(state.global_step, values)
        self._session.reporter.progress(self._progress(state, values))
        shown = "  ".join(f"{name} {values[name]:.4g}" for name in _SHOWN[:5] if name in values)
        log.info("step %d of %d  %s", state.global_step, state.max_steps, shown)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Hand the checkpoint to the uploader."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._session.uploader.put(
            checkpoints.snapshot(
                folder,
                self._session.pod.work / "outbox",
                state.global_step,
                self._session.run.model.id,
            )
        )
        self.saved_step = state.global_step

    def _progress(self, state: TrainerState, values: dict[str, float]) -> Progress:
        first, began = self._began
        done, left = state.global_step - first, state.max_steps - state.global_step
        pace = (time.monotonic() - began) / done if done else None
        return Progress(
            step=state.global_step,
            total_steps=state.max_steps,
            eta_seconds=None if pace is None else round(pace * left),
            metrics={name: values[name] for name in _SHOWN if name in values},
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def resume_folder(session: Session) -> Path | None:
    """Download the checkpoint to go on from, and take over the history up to it."""
    folder = session.pod.work / "resume"
    shutil.rmtree(folder, ignore_errors=True)
    step = checkpoints.restore(session.attempt.store, session.attempt.prefix, folder)
    session.reporter.continue_history(step)
    return folder if step else None


def policy(session: Session) -> tuple[Any, dict[str, Any] | None]:
    """Return the model, and the arguments of its fresh adapter or None when it has one."""
    run = session.run
    set_seed(run.seed)
    base = model.load(session.pod.model_folder(run))
    if run.init_from_adapter is None:
        return base, arguments.lora(run, model.adapter_targets(base))
    folder = model.download_adapter(
        session.attempt.store, run.init_from_adapter, session.pod.work / "init"
    )
    return model.with_adapter(base, folder, run.init_from_adapter.ref), None


def drive(trainer: Any, link: Link, session: Session) -> Path | None:
    """Train to the end, and return the folder with the final adapter; None when interrupted."""
    trainer.remove_callback(PrinterCallback)
    resume = resume_folder(session)
    session.interruption.training_begins()
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except Exception:
        save_what_there_is(trainer, link)
        raise
    state = trainer.state
    if state.global_step < state.max_steps and session.interruption.requested:
        return None
    folder = session.pod.work / "adapter"
    trainer.save_model(str(folder))
    for path in folder.iterdir():
        # Tokenizer, arguments and TRL's card: not part of an adapter.
        if not path.name.startswith("adapter_"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    checkpoints.portable_config(folder / "adapter_config.json", session.run.model.id)
    return folder


def save_what_there_is(trainer: Any, link: Link) -> None:
    """Save the last whole step before an error ends the run; a second error changes nothing."""
    if trainer.state.global_step <= link.saved_step:
        return
    try:
        trainer._save_checkpoint(trainer.model, trial=None)
        link.on_save(trainer.args, trainer.state, trainer.control)
    except Exception:
        log.warning("the last step could not be saved", exc_info=True)
