"""What both methods share around TRL's training loop: resume, report, save, stop, finish."""

import logging
import math
import os
import shutil
import time
from collections.abc import Callable
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
from flashrun.api.reasons import Activity
from flashrun.api.records import STEP_SECONDS, MetricsRow, Progress
from flashrun_trainer import adapter_layers, memory_probe, model, sharding, trl_arguments
from flashrun_trainer.checkpoint import (
    TrainingObjects,
    WholeStep,
    capture_random_state,
    save_adapter,
    write_checkpoint,
)
from flashrun_trainer.context import TrainContext
from flashrun_trainer.evaluator import Evaluator
from flashrun_trainer.pod.trainer_errors import divergence_error
from flashrun_trainer.records import checkpoint_uploads, termination, timing
from flashrun_trainer.step_gate import StepGate

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
    STEP_SECONDS,
)
"""Metrics in the heartbeat; the history in storage has all metrics."""
_LOGGED_METRICS: Final = _HEARTBEAT_METRICS[:5]


class TrainingCallback(TrainerCallback):
    """TRL's callback: passes values from the loop to the context, and requests to the loop."""

    def __init__(self, context: TrainContext) -> None:
        self._context = context
        self._began = (0, time.monotonic())
        self.gate = StepGate()
        """Open while the last whole step is what the model and the optimizer hold."""
        self._objects: TrainingObjects | None = None
        self._whole: WholeStep | None = None
        self._logged = 0
        """Newest step whose loss is known: the ranks have gathered it after the step."""
        self._evaluating: int | None = None
        """Step whose evaluation has begun and not ended."""
        self.resumed_from: Path | None = None
        """Checkpoint from which this attempt has resumed."""
        self.last_saved_step = 0
        """Step that the uploader has, or from which this attempt has resumed."""
        self.evaluator: Evaluator | None = None
        """Evaluates the run on held-out examples; None when it has none."""
        self.environment_metrics: dict[str, float] = {}
        """Metrics of the environment for the current step."""
        self.timer = timing.StepTimer(timing.load_startup_seconds(context.pod.packages))
        context.reporter.watch_phase(self.timer.current_phase)
        self.tokens_until: Callable[[int], int] | None = None
        """Returns the tokens of the first steps; None uses TRL's count."""
        self.epochs_until: Callable[[int], float] | None = None
        """Returns the epochs of the first steps; None uses TRL's count."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Start the clock."""
        self._objects = TrainingObjects.from_callback(state, objects)
        self.timer.end_startup_part("loading")
        self.timer.start_tokens_at(self._tokens(state))
        self._context.reporter.set_progress(self._progress(state, {}))
        with self.timer.excluded():
            self.make_up_evaluation(state.global_step, state.max_steps)
        self._began = (state.global_step, time.monotonic())
        self._context.reporter.set_activity(Activity.TRAINING)

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Begin to change the weights."""
        self.gate.begin_change()
        self._whole = None

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Begin a step: the one before is logged and saved."""
        self.gate.end_change()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """End training: the last step is logged and saved, and nobody may stop the run any more."""
        self.gate.close()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Remember the whole step, and save it if that was requested: on all ranks."""
        context = self._context
        if (error := context.reporter.superseded or context.uploader.error) is not None:
            raise error
        process_group = context.process_group
        ranks = process_group.all_gather(
            (context.reporter.take_save_request(), capture_random_state(process_group.world_size))
        )
        self._whole = WholeStep(
            state.global_step,
            int(state.num_input_tokens_seen),
            tuple(random_state for _, random_state in ranks),
        )
        if any(save_requested for save_requested, _ in ranks):
            control.should_save = True
        if self.evaluator is not None:
            saves, step = control.should_save, state.global_step
            control.should_evaluate = self.evaluator.is_due(step, state.max_steps, saves=saves)
            control.should_save |= control.should_evaluate

    def evaluate(self, state: TrainerState) -> None:
        """Evaluate the last whole step; whoever asks the run to stop meanwhile gets that step."""
        if self.evaluator is None:
            return
        self._evaluating = state.global_step
        self.gate.end_change()
        with self.timer.excluded():
            self.evaluator.evaluate(state.global_step, state.max_steps)
        self.gate.begin_change()
        self._evaluating = None

    def make_up_evaluation(self, step: int, steps: int) -> None:
        """Evaluate the step with which this attempt begins, unless an earlier one has done it.

        The checkpoint gets its score by a manifest of this attempt: that of the attempt which was
        stopped is never changed, and its state remains what a resume needs.
        """
        if self.evaluator is None:
            return
        context = self._context
        stored = checkpoint_uploads.StoredEvaluation()
        if self.resumed_from is not None and context.process_group.is_main_process:
            attempt = context.attempt
            stored = checkpoint_uploads.read_evaluation(attempt.store, attempt.prefix, step)
        stored = context.process_group.broadcast(stored)
        self.evaluator.resume(step, steps, stopped=stored.stopped)
        evaluation = self.evaluator.of_checkpoint(step)
        if self.resumed_from is None or stored.scored or evaluation is None:
            return
        if context.process_group.is_main_process:
            log.info("the evaluation of step %d is made up", step)
            outbox, model_id = context.pod.work / "outbox", context.run.model.id
            context.uploader.put_adapter(
                checkpoint_uploads.take_snapshot(
                    self.resumed_from, outbox, step, model_id, evaluation
                )
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **_: Any,
    ) -> None:
        """Append a step to the history; fail the run if its loss or gradient is not finite."""
        del state.log_history[:-1]  # TRL would keep every step, in memory and in every save
        if "loss" not in logs:
            return  # the summary that TRL logs after training
        self._logged = state.global_step
        for name in ("loss", "grad_norm"):
            value = logs.get(name)
            if value is not None and (
                error := divergence_error(name, float(value), state.global_step)
            ):
                raise error
        values = {name: float(value) for name, value in logs.items() if _is_finite_number(value)}
        values |= self.environment_metrics | self.timer.end_row(self._tokens(state))
        if start := timing.describe_start(values):
            log.info("%s", start)
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
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save the step."""
        if self._context.process_group.is_main_process:
            self.save_whole_step()
        self.timer.count_as_saving()

    def save_whole_step(self, urgent: bool = False) -> int:
        """Give the last whole step to the uploader, unless it has it, and return its number.

        It may be called on any thread while the gate keeps the step. An ``urgent`` one is uploaded
        before those that still wait.

        Raises:
            TrainerError: a weight is not finite.
        """
        whole, objects = self._whole, self._objects
        if whole is None or objects is None or whole.step <= self.last_saved_step:
            return self.last_saved_step
        if whole.step > self._logged:
            # Another rank was lost right after the step. A resume from it would lack its row.
            log.warning("step %d is not saved: its loss is not known", whole.step)
            return self.last_saved_step
        if not objects.weights_are_finite() and (
            error := divergence_error("a weight", math.nan, whole.step)
        ):
            raise error
        folder = self._context.pod.work / "checkpoints" / f"checkpoint-{whole.step}"
        write_checkpoint(folder, objects, whole)
        evaluation = self.evaluator.of_checkpoint(whole.step) if self.evaluator else None
        snapshot = checkpoint_uploads.take_snapshot(
            folder,
            self._context.pod.work / "outbox",
            whole.step,
            self._context.run.model.id,
            evaluation,
            evaluation_stopped=evaluation is None and self._evaluating == whole.step,
        )
        self._context.uploader.put(snapshot, urgent=urgent)
        shutil.rmtree(folder)
        self.last_saved_step = whole.step
        return whole.step

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


class OwnRecords:
    """Mixin for TRL's trainers: ``TrainingCallback`` writes their checkpoints and evaluates."""

    evaluate_step: Callable[[], None]
    """Evaluates the step that has just ended."""
    control: TrainerControl
    micro_batch: dict[str, Any] | None = None
    """The micro-batch whose gradient is being computed; None in every other part of a step."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the gradient of a micro-batch."""
        self.micro_batch = None
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.micro_batch = None
        return loss

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Remember the micro-batch, in case that the GPU has no memory for it."""
        self.micro_batch = inputs
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self, *_: Any, **__: Any) -> None:
        """Write nothing: ``TrainingCallback.on_save`` does."""

    def _evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Evaluate on our held-out examples; at the end of an epoch, TRL would ask again."""
        self.evaluate_step()
        self.control.should_evaluate = False
        return {}


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


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
        context.uploader.continue_from(checkpoint.step if checkpoint else 0)
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
    """Train to the end, and return the folder of the final adapter; None on ranks above 0.

    A SIGTERM in between ends the process with the last whole step, and this does not return.
    """
    trainer.remove_callback(PrinterCallback)
    _report_adapted_layers(trainer.model, context)
    if context.sharded:
        sharding.exclude_shards_from_ddp(trainer.model)
    trainer.evaluate_step = lambda: callback.evaluate(trainer.state)
    resume = download_resume_checkpoint(context)
    is_main_process = context.process_group.is_main_process
    adapter = context.pod.work / "adapter" / names.adapter_folder(context.attempt.number)
    if resume:
        state = TrainerState.load_from_json(str(resume / "trainer_state.json"))
        callback.last_saved_step = state.global_step
        callback.resumed_from = resume
        # An earlier attempt may have trained all steps, and then failed to publish the adapter. In
        # the middle of an epoch, TRL would take one step too many.
        if state.global_step >= trainer.args.max_steps:
            with context.interruption.stopping(lambda: stop_training(callback, context)):
                _evaluate_finished_run(trainer, callback, resume, state)
                callback.gate.close()
            callback.report_finished_run(state)
            return move_adapter(resume, adapter) if is_main_process else None
    with context.interruption.stopping(lambda: stop_training(callback, context)):
        try:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        except BaseException as error:
            callback.gate.close()
            if is_main_process:
                save_last_step(callback)
            memory_probe.explain_memory_error(error, trainer, context)
    # No rank exits while another one may still wait for it in a collective.
    context.process_group.barrier()
    if not is_main_process:
        return None
    saved = context.pod.work / "saved"
    save_adapter(trainer.model, saved)
    checkpoint_uploads.write_portable_config(saved / "adapter_config.json", context.run.model.id)
    return move_adapter(saved, adapter)


def _evaluate_finished_run(
    trainer: Any, callback: TrainingCallback, resume: Path, state: TrainerState
) -> None:
    """Evaluate the adapter of a run without steps left, unless an earlier attempt has done it."""
    if callback.evaluator is not None:
        trainer._load_from_checkpoint(str(resume))
        callback.make_up_evaluation(state.global_step, trainer.args.max_steps)


def _report_adapted_layers(peft_model: Any, context: TrainContext) -> None:
    """Report what PEFT made of the adapter's config, and make that config portable."""
    adapter_layers.simplify_config(peft_model)
    adapted = adapter_layers.describe(peft_model)
    log.info("%s", adapter_layers.describe_in_words(adapted))
    if warning := adapter_layers.share_warning(adapted):
        log.warning("%s", warning)
    context.reporter.set_adapted(adapted, warning)


def stop_training(callback: TrainingCallback, context: TrainContext) -> None:
    """End this process with the last whole step, whatever its main thread does or waits for.

    Only rank 0 saves, and it has all that is needed: it waits for no other rank. A run that has
    finished its last step goes on, and publishes the adapter.
    """
    if not context.process_group.is_main_process:
        log.info("this process was asked to stop")
        os._exit(Exit.INTERRUPTED_UNSAVED)
    log.info("the pod was asked to stop")
    # An existing termination file tells the launcher that this process ends by itself.
    termination.write_termination(context.pod.termination, None)
    if callback.gate.stop():
        context.end_interrupted(lambda: callback.save_whole_step(urgent=True))


def move_adapter(source: Path, folder: Path) -> Path:
    """Move the adapter's files to ``folder``, without tokenizer, arguments and TRL's card."""
    folder.mkdir(parents=True)
    for path in source.glob("adapter_*"):
        path.replace(folder / path.name)
    return folder


def save_last_step(callback: TrainingCallback) -> None:
    """Save the last whole step before an error ends the run; a second error is only logged."""
    try:
        callback.save_whole_step()
    except Exception:
        log.warning("the last step could not be saved", exc_info=True)
