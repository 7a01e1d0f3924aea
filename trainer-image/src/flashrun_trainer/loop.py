"""What both methods share around TRL's training loop: resume, report, save, stop, finish."""

import hashlib
import logging
import math
import shutil
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
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

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.reasons import Activity, Reason
from flashrun.api.records import MetricsRow, Progress
from flashrun_trainer import model, sharding, trl_arguments
from flashrun_trainer.context import Session
from flashrun_trainer.pod.distributed import Ranks
from flashrun_trainer.pod.trainer_errors import TrainerError, diverged
from flashrun_trainer.records import checkpoint_uploads, timing

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
    "tokens_per_second",
)
"""Metrics that the heartbeat carries; the history has all."""


class Link(TrainerCallback):
    """Connects TRL's loop to the session: values out, requests in."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._began = (0, time.monotonic())
        self.saved_step = 0
        self.stopped = False
        """Whether training ends early because a process was asked to stop."""
        self.extra: dict[str, float] = {}
        """Metrics of the environment for the step that is under way."""
        self.meter = timing.Meter(timing.notes(session.pod.packages))
        session.reporter.watch(self.meter.under_way)
        self.tokens_of: Callable[[int], int] | None = None
        """Tokens from the first step to this one, where the method knows better than TRL."""
        self.epochs_of: Callable[[int], float] | None = None
        """Epochs from the first step to this one, likewise."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock."""
        self.saved_step = state.global_step
        self._began = (state.global_step, time.monotonic())
        self.meter.started("loading")
        self.meter.resumed(self._tokens(state))
        self._session.reporter.progress(self._progress(state, {}))
        self._session.reporter.activity(Activity.TRAINING)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop or save when somebody asked for it: all processes, at the same step."""
        session = self._session
        if (error := session.reporter.superseded or session.uploader.error) is not None:
            raise error
        save, self.stopped = session.ranks.any_of(
            session.reporter.take_save_request(), session.interruption.requested
        )
        if save or self.stopped:
            control.should_save = True
        if self.stopped:
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
        values |= self.extra | self.meter.row(self._tokens(state))
        if self.epochs_of is not None:
            values["epoch"] = self.epochs_of(state.global_step)
        values.pop("num_tokens", None)
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
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Hand the checkpoint to the uploader, with everybody's random numbers in it."""
        if not is_finite(model) and (end := diverged("a weight", math.nan, state.global_step)):
            raise end
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        ranks = self._session.ranks
        if ranks.world > 1:
            gather_random_states(ranks, folder)
        if ranks.leads:
            self.upload(folder, state.global_step)
        self.saved_step = state.global_step
        self.meter.saved()

    def upload(self, folder: Path, step: int, resumable: bool = True) -> None:
        """Queue a checkpoint; of one that is not ``resumable`` only the adapter."""
        taken = checkpoint_uploads.snapshot(
            folder, self._session.pod.work / "outbox", step, self._session.run.model.id, resumable
        )
        self._session.uploader.put(taken)

    def no_step_left(self, state: TrainerState) -> None:
        """Report a run that was resumed from its last step."""
        last = state.log_history[-1] if state.log_history else {}
        values = {name: float(value) for name, value in last.items() if _is_number(value)}
        self._session.reporter.progress(self._progress(state, values))

    def _tokens(self, state: TrainerState) -> int:
        if self.tokens_of is not None:
            return self.tokens_of(state.global_step)
        return int(state.num_input_tokens_seen)

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


class WithoutCards:
    """Beside a trainer of TRL's: no card at every checkpoint; the final adapter gets ours."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write nothing."""


def same_everywhere(ranks: Ranks, examples: Iterable[Sequence[int]]) -> None:
    """Make sure that all processes have the same examples, given as token ids.

    Each deals itself its share of what it takes for the same list.

    Raises:
        TrainerError: they differ.
    """
    if ranks.world == 1:
        return
    found = hashlib.sha256()
    for ids in examples:
        found.update(b"%d:" % len(ids) + array("q", ids).tobytes())
    if len(set(ranks.gathered(found.hexdigest()))) > 1:
        raise TrainerError(
            Exit.ENVIRONMENT,
            Reason.EXAMPLES_DIFFER,
            "the environment gives different examples to the processes of this run: its code draws "
            "at random",
            "let environment.py draw from a random.Random with a seed of its own",
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def gather_random_states(ranks: Ranks, folder: Path) -> None:
    """Bring the random states of all processes into the first one's checkpoint.

    Each has written its own, on its own pod's disk.
    """
    own = folder / f"rng_state_{ranks.number}.pth"
    states = ranks.gathered(own.read_bytes())
    if ranks.leads:
        for number, state in enumerate(states):
            (folder / f"rng_state_{number}.pth").write_bytes(state)
    elif not (folder / "trainer_state.json").exists():
        # Not the leading pod's disk: nothing of this checkpoint is needed here.
        shutil.rmtree(folder, ignore_errors=True)


def resume_folder(session: Session) -> Path | None:
    """Download the checkpoint to go on from, and take over the history up to it.

    The first process chooses; in every pod one downloads, for all of its processes.
    """
    folder = session.pod.work / "resume"
    store, prefix, ranks = session.attempt.store, session.attempt.prefix, session.ranks
    place = None
    if ranks.leads:
        shutil.rmtree(folder, ignore_errors=True)
        place = checkpoint_uploads.restore(store, prefix, folder)
        session.reporter.continue_history(place.step if place else 0)
    place = ranks.shared(place)
    if place is None:
        return None
    if ranks.local == 0 and not ranks.leads:
        shutil.rmtree(folder, ignore_errors=True)
        checkpoint_uploads.fetch(store, prefix, place, folder)
    ranks.wait()
    return folder


def policy(session: Session) -> tuple[Any, dict[str, Any] | None]:
    """Return the model, and the arguments of its fresh adapter or None when it has one."""
    run = session.run
    set_seed(run.seed)
    base = _base_model(session)
    if run.init_from_adapter is None:
        return base, trl_arguments.lora(run, model.adapter_targets(base))
    source, init = run.init_from_adapter, session.pod.work / "init"
    session.ranks.once_a_pod(lambda: model.download_adapter(session.attempt.store, source, init))
    folder = model.adapter_folder(init)
    return model.with_adapter(base, folder, run.init_from_adapter.ref), None


def _base_model(session: Session) -> Any:
    def load() -> Any:
        return model.load(session.pod.model_folder(session.run))

    if not session.sharded:
        return load()
    return sharding.loaded(load, session.ranks, session.run.scale.gpus)


def drive(trainer: Any, link: Link, session: Session) -> Path | None:
    """Train to the end, and return the folder with the final adapter; None when interrupted."""
    trainer.remove_callback(PrinterCallback)
    if session.sharded:
        sharding.keep_apart(trainer.model)
    resume = resume_folder(session)
    session.interruption.training_begins()
    folder = session.pod.work / "adapter" / names.adapter_folder(session.attempt.number)
    if resume and (end := last_state(resume, trainer.args.max_steps)):
        link.no_step_left(end)
        return keep_adapter(resume, folder) if session.ranks.leads else None
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except Exception:
        if session.ranks.leads:
            save_what_there_is(trainer, link, resumable=session.ranks.world == 1)
        raise
    # Nobody leaves while another one may still want to hear from it.
    session.ranks.wait()
    state = trainer.state
    if state.global_step < state.max_steps and link.stopped:
        return None
    saved = session.pod.work / "saved"
    trainer.save_model(str(saved))
    if not session.ranks.leads:
        return None
    checkpoint_uploads.portable_config(saved / "adapter_config.json", session.run.model.id)
    return keep_adapter(saved, folder)


def last_state(checkpoint: Path, steps: int) -> TrainerState | None:
    """Return the state of a checkpoint that has all steps; None when some are left.

    TRL goes on from any checkpoint, and in the middle of an epoch it takes one step too many.
    """
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state if state.global_step >= steps else None


def keep_adapter(source: Path, folder: Path) -> Path:
    """Move an adapter to ``folder``; tokenizer, arguments and TRL's card are not part of it."""
    folder.mkdir(parents=True)
    for path in source.glob("adapter_*"):
        path.replace(folder / path.name)
    return folder


def is_finite(network: Any) -> bool:
    """Say whether all weights that learn are numbers."""
    learning = (weight for weight in network.parameters() if weight.requires_grad)
    return all(bool(weight.isfinite().all()) for weight in learning)


def save_what_there_is(trainer: Any, link: Link, resumable: bool) -> None:
    """Save the last whole step before an error ends the run; a second error changes nothing.

    The other processes may be gone, and their random states with them: then the adapter is kept,
    and a resume goes on from the last checkpoint that has everything.
    """
    step = trainer.state.global_step
    if step <= link.saved_step:
        return
    if not is_finite(trainer.model):
        log.warning("step %d is not saved: training has diverged", step)
        return
    # Nothing here may wait for the other processes: they are in the middle of a step, or gone.
    trainer.store_flos = lambda: None
    try:
        trainer._save_checkpoint(trainer.model, trial=None)
        link.upload(Path(trainer.args.output_dir) / f"checkpoint-{step}", step, resumable)
    except Exception:
        log.warning("the last step could not be saved", exc_info=True)
