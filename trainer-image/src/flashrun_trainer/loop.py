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
from flashrun.api.bounds import fit_metrics
from flashrun.api.exits import Exit
from flashrun.api.reasons import Activity, Reason
from flashrun.api.records import MetricsRow, Progress
from flashrun_trainer import adapter_layers, model, sharding, trl_arguments
from flashrun_trainer.context import TrainContext
from flashrun_trainer.pod.distributed import ProcessGroup
from flashrun_trainer.pod.trainer_errors import TrainerError, divergence_error
from flashrun_trainer.records import checkpoint_uploads, timing

log = logging.getLogger(__name__)

_HEARTBEAT_METRICS: Final = (
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
"""Metrics in the heartbeat; the history in storage has all metrics."""
_LOGGED_METRICS: Final = _HEARTBEAT_METRICS[:5]


class TrainingCallback(TrainerCallback):
    """TRL's callback: passes values from the loop to the context, and requests to the loop."""

    def __init__(self, context: TrainContext) -> None:
        self._context = context
        self._began = (0, time.monotonic())
        self.last_saved_step = 0
        self.stop_requested = False
        """Whether training ends early because a process was asked to stop."""
        self.environment_metrics: dict[str, float] = {}
        """Metrics of the environment for the current step."""
        self.timer = timing.StepTimer(timing.load_startup_seconds(context.pod.packages))
        context.reporter.watch_phase(self.timer.current_phase)
        self.tokens_until: Callable[[int], int] | None = None
        """Returns the tokens of the first steps; None uses TRL's count."""
        self.epochs_until: Callable[[int], float] | None = None
        """Returns the epochs of the first steps; None uses TRL's count."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock."""
        self.last_saved_step = state.global_step
        self._began = (state.global_step, time.monotonic())
        self.timer.end_startup_part("loading")
        self.timer.start_tokens_at(self._tokens(state))
        self._context.reporter.set_progress(self._progress(state, {}))
        self._context.reporter.set_activity(Activity.TRAINING)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save or stop when that was requested: on all ranks, at the same step."""
        context = self._context
        if (error := context.reporter.superseded or context.uploader.error) is not None:
            raise error
        save, self.stop_requested = context.process_group.any_rank(
            context.reporter.take_save_request(), context.interruption.requested
        )
        if save or self.stop_requested:
            control.should_save = True
        if self.stop_requested:
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **_: Any,
    ) -> None:
        """Append a step to the history; fail the run if its loss or gradient is not finite."""
        if "loss" not in logs:
            return  # the summary that TRL logs after training
        for name in ("loss", "grad_norm"):
            value = logs.get(name)
            if value is not None and (
                error := divergence_error(name, float(value), state.global_step)
            ):
                raise error
        values = {name: float(value) for name, value in logs.items() if _is_finite_number(value)}
        values |= self.environment_metrics | self.timer.end_row(self._tokens(state))
        if self.epochs_until is not None:
            values["epoch"] = self.epochs_until(state.global_step)
        values.pop("num_tokens", None)  # TRL's own count; ours is "tokens"
        self.environment_metrics = {}
        row = MetricsRow(
            step=state.global_step,
            attempt=self._context.attempt.number,
            time=datetime.now(UTC),
            values=fit_metrics(values),
        )
        self._context.reporter.append_metrics(row)
        self._context.tracker.log(state.global_step, values)
        self._context.reporter.set_progress(self._progress(state, values))
        logged = (f"{name} {values[name]:.4g}" for name in _LOGGED_METRICS if name in values)
        log.info("step %d of %d  %s", state.global_step, state.max_steps, "  ".join(logged))

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Give the checkpoint to the uploader, with the random states of all ranks in it."""
        step = state.global_step
        if not weights_are_finite(model) and (
            error := divergence_error("a weight", math.nan, step)
        ):
            raise error
        folder = Path(args.output_dir) / f"checkpoint-{step}"
        process_group = self._context.process_group
        if process_group.world_size > 1:
            gather_random_states(process_group, folder)
        if process_group.is_main_process:
            self.upload(folder, step)
        self.last_saved_step = step
        self.timer.count_as_saving()

    def upload(self, folder: Path, step: int, resumable: bool = True) -> None:
        """Queue a checkpoint for upload; only its adapter when it is not ``resumable``."""
        snapshot = checkpoint_uploads.take_snapshot(
            folder, self._context.pod.work / "outbox", step, self._context.run.model.id, resumable
        )
        self._context.uploader.put(snapshot)

    def report_finished_run(self, state: TrainerState) -> None:
        """Report the progress of a run that was resumed from its last step."""
        last = state.log_history[-1] if state.log_history else {}
        values = {name: float(value) for name, value in last.items() if _is_finite_number(value)}
        self._context.reporter.set_progress(self._progress(state, values))

    def _tokens(self, state: TrainerState) -> int:
        if self.tokens_until is not None:
            return self.tokens_until(state.global_step)
        return int(state.num_input_tokens_seen)

    def _progress(self, state: TrainerState, values: dict[str, float]) -> Progress:
        first, began = self._began
        steps_done, steps_left = state.global_step - first, state.max_steps - state.global_step
        seconds_per_step = (time.monotonic() - began) / steps_done if steps_done else None
        return Progress(
            step=state.global_step,
            total_steps=state.max_steps,
            eta_seconds=None if seconds_per_step is None else round(seconds_per_step * steps_left),
            metrics={name: values[name] for name in _HEARTBEAT_METRICS if name in values},
        )


class WithoutModelCards:
    """Mixin for TRL's trainers: no model card per checkpoint; the final adapter gets ours."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write nothing."""


def check_same_examples(process_group: ProcessGroup, examples: Iterable[Sequence[int]]) -> None:
    """Check that all ranks have the same examples, given as token ids.

    Each rank takes its share of its own list, so a different order would train on some examples
    twice and on others never.

    Raises:
        TrainerError: the examples differ.
    """
    if process_group.world_size == 1:
        return
    sha256 = hashlib.sha256()
    for ids in examples:
        sha256.update(b"%d:" % len(ids) + array("q", ids).tobytes())
    if len(set(process_group.all_gather(sha256.hexdigest()))) > 1:
        raise TrainerError(
            Exit.ENVIRONMENT,
            Reason.EXAMPLES_DIFFER,
            "the environment gives different examples to the processes of this run: its code draws "
            "random numbers without a seed",
            "use a random.Random with a fixed seed in environment.py",
        )


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def gather_random_states(process_group: ProcessGroup, folder: Path) -> None:
    """Collect the random states of all ranks in the checkpoint of rank 0.

    Each rank has written its own state, on the disk of its own pod.
    """
    own = folder / f"rng_state_{process_group.rank}.pth"
    states = process_group.all_gather(own.read_bytes())
    if process_group.is_main_process:
        for rank, state in enumerate(states):
            (folder / f"rng_state_{rank}.pth").write_bytes(state)
    elif not (folder / "trainer_state.json").exists():
        # This is not the leading pod's disk: nothing else of the checkpoint is here.
        shutil.rmtree(folder, ignore_errors=True)


def download_resume_checkpoint(context: TrainContext) -> Path | None:
    """Download the checkpoint to resume from, and the history up to it; None for a fresh start.

    Rank 0 chooses the checkpoint. In every other pod, local rank 0 downloads it for the pod.
    """
    folder = context.pod.work / "resume"
    store, prefix = context.attempt.store, context.attempt.prefix
    process_group = context.process_group
    checkpoint = None
    if process_group.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
        checkpoint = checkpoint_uploads.restore(store, prefix, folder)
        context.reporter.continue_history(checkpoint.step if checkpoint else 0)
    checkpoint = process_group.broadcast(checkpoint)
    if checkpoint is None:
        return None
    if process_group.local_rank == 0 and not process_group.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
        checkpoint_uploads.download_checkpoint(store, prefix, checkpoint, folder)
    process_group.barrier()
    return folder


def load_policy(context: TrainContext) -> tuple[Any, dict[str, Any] | None]:
    """Return the model, and the ``LoraConfig`` arguments of a fresh adapter.

    The arguments are None when the run starts from an existing adapter, which the model then has.
    """
    run = context.run
    set_seed(run.seed)
    base = _load_base_model(context)
    source = run.init_from_adapter
    if source is None:
        return base, trl_arguments.lora(run, *adapter_layers.find_targets(base))
    download, store = context.pod.work / "init", context.attempt.store
    context.process_group.run_once_per_pod(lambda: model.download_adapter(store, source, download))
    return model.attach_adapter(base, model.adapter_folder(download), source.ref), None


def _load_base_model(context: TrainContext) -> Any:
    def load() -> Any:
        return model.load(context.pod.model_folder(context.run))

    if not context.sharded:
        return load()
    return sharding.load_sharded(load, context.process_group, context.run.scale.gpus)


def run_training(trainer: Any, callback: TrainingCallback, context: TrainContext) -> Path | None:
    """Train to the end.

    Returns the folder of the final adapter; None on ranks above 0, and when training was
    interrupted.
    """
    trainer.remove_callback(PrinterCallback)
    _report_adapted_layers(trainer.model, context)
    if context.sharded:
        sharding.exclude_shards_from_ddp(trainer.model)
    resume = download_resume_checkpoint(context)
    context.interruption.training_begins()
    is_main_process = context.process_group.is_main_process
    adapter = context.pod.work / "adapter" / names.adapter_folder(context.attempt.number)
    # An earlier attempt may have trained all steps, and then failed to publish the adapter.
    if resume and (state := finished_state(resume, trainer.args.max_steps)):
        callback.report_finished_run(state)
        return move_adapter(resume, adapter) if is_main_process else None
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except Exception:
        if is_main_process:
            save_last_step(trainer, callback, resumable=context.process_group.world_size == 1)
        raise
    # No rank exits while another one may still wait for it in a collective.
    context.process_group.barrier()
    if trainer.state.global_step < trainer.state.max_steps and callback.stop_requested:
        return None
    saved = context.pod.work / "saved"
    trainer.save_model(str(saved))
    if not is_main_process:
        return None
    checkpoint_uploads.write_portable_config(saved / "adapter_config.json", context.run.model.id)
    return move_adapter(saved, adapter)


def _report_adapted_layers(peft_model: Any, context: TrainContext) -> None:
    """Report what PEFT made of the adapter's config, and make that config portable."""
    adapter_layers.simplify_config(peft_model)
    adapted = adapter_layers.describe(peft_model)
    log.info("%s", adapter_layers.describe_in_words(adapted))
    if warning := adapter_layers.share_warning(adapted):
        log.warning("%s", warning)
    context.reporter.set_adapted(adapted, warning)


def finished_state(checkpoint: Path, steps: int) -> TrainerState | None:
    """Return the state of a checkpoint that has all ``steps``; None when steps are left.

    TRL resumes from any checkpoint, and in the middle of an epoch it takes one step too many.
    """
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state if state.global_step >= steps else None


def move_adapter(source: Path, folder: Path) -> Path:
    """Move the adapter's files to ``folder``, without tokenizer, arguments and TRL's card."""
    folder.mkdir(parents=True)
    for path in source.glob("adapter_*"):
        path.replace(folder / path.name)
    return folder


def weights_are_finite(network: Any) -> bool:
    """Return whether all trainable weights are finite."""
    trainable = (weight for weight in network.parameters() if weight.requires_grad)
    return all(bool(weight.isfinite().all()) for weight in trainable)


def save_last_step(trainer: Any, callback: TrainingCallback, resumable: bool) -> None:
    """Save the last complete step before an error ends the run; a second error is only logged.

    With several ranks, the others may have died, and their random states with them. Then only the
    adapter is saved (``resumable`` is False), and a resume uses the last complete checkpoint.
    """
    step = trainer.state.global_step
    if step <= callback.last_saved_step:
        return
    if not weights_are_finite(trainer.model):
        log.warning("step %d is not saved: training has diverged", step)
        return
    # Nothing here may wait for the other ranks: they are in the middle of a step, or gone.
    trainer.store_flos = lambda: None
    try:
        trainer._save_checkpoint(trainer.model, trial=None)
        callback.upload(Path(trainer.args.output_dir) / f"checkpoint-{step}", step, resumable)
    except Exception:
        log.warning("the last step could not be saved", exc_info=True)
