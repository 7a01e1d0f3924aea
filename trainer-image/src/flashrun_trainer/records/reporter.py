"""What an attempt writes to storage while it trains, from one background thread.

Training hands over values and never waits. The thread writes the heartbeat, all metrics, the
sampled rollouts and the log to storage, and reads the operator's requests. When storage is
unavailable for a while, the records are late but complete: each pass writes what is missing.

All of this except the log belongs to the run, and the next attempt continues it. The thread
therefore confirms the attempt's claim before it writes any of it.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from flashrun.api import names
from flashrun.api.reasons import Activity
from flashrun.api.records import (
    AdaptedLayers,
    Batching,
    Evaluation,
    Heartbeat,
    MetricsRow,
    Progress,
    TrainerControl,
)
from flashrun.store_errors import KeyNotFound, StoreError
from flashrun_trainer.pod import main_memory
from flashrun_trainer.pod.redaction import Redactor
from flashrun_trainer.pod.trainer_errors import TrainerError, shorten
from flashrun_trainer.records.attempts import ClaimedAttempt
from flashrun_trainer.records.metrics_uploads import MetricsUploads
from flashrun_trainer.records.timing import StepPhase

log = logging.getLogger(__name__)

PASS_SECONDS: Final = 3.0
"""Time between two passes over what has changed and what is requested."""
HEARTBEAT_SECONDS: Final = 15.0
"""Longest time between two heartbeats; a change is written earlier."""
_LOG_SECONDS: Final = 10.0
_LONG_WAIT_SECONDS: Final = 600.0
"""When a step has waited for the environment for so long, the heartbeat carries a warning."""
_WAITS_FOR: Final[dict[StepPhase | None, str]] = {
    StepPhase.SCORING: "scores",
    StepPhase.ENVIRONMENT: "the environment's replies",
}
_LAST_PASS_SECONDS: Final = 30.0
"""Longest wait for the last pass: storage that hangs must not keep a pod from ending."""
_BYTES_PER_PAUSE: Final = 4 * 1024 * 1024
"""Growing files are uploaded whole; the pause between uploads grows with every 4 MiB."""


class Reporter:
    """Writes the records of one attempt until it is closed."""

    def __init__(
        self,
        attempt: ClaimedAttempt,
        work: Path,
        redact: Redactor,
        log_path: Path | None = None,
        pass_seconds: float = PASS_SECONDS,
    ) -> None:
        self._attempt = attempt
        self._redact = redact
        self._lock = threading.Lock()
        self._activity = Activity.LOADING
        self._progress: Progress | None = None
        self._batching: Batching | None = None
        self._adapted: AdaptedLayers | None = None
        self._warning = ""
        self._wandb = ""
        self._lasting_warning = ""
        self._evaluation: Evaluation | None = None
        self._evaluation_warning = ""
        self._current_phase: Callable[[], tuple[StepPhase | None, float]] = lambda: (None, 0.0)
        self._commits = 0
        self._rollouts = work / "rollouts"
        self._rollouts.mkdir(exist_ok=True)
        self._rollouts_lock = threading.RLock()
        """Held during an upload, so that older rollouts of a step never replace newer ones."""
        self._metrics = MetricsUploads(attempt, work / "metrics.jsonl")
        log_key = names.log_key(attempt.prefix, attempt.number)
        self._log = None if log_path is None else _GrowingFile(log_key, log_path, _LOG_SECONDS)
        self._heartbeat_changed = True
        self._heartbeat_written = 0.0
        self._claim_confirmed = -float("inf")
        self._seen_save_request = ""
        self._save_requested = threading.Event()
        self._superseded: TrainerError | None = None
        self._failing = False
        self._wake = threading.Event()
        self._wake.set()  # write the first heartbeat at once
        self._closed = threading.Event()
        self._pass_seconds = pass_seconds
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    # --- called by training ---------------------------------------------------------------------

    def set_activity(self, activity: Activity) -> None:
        """Set what the trainer is doing, for the next heartbeat."""
        with self._lock:
            self._activity, self._heartbeat_changed = activity, True
        self._wake.set()

    def set_progress(self, progress: Progress) -> None:
        """Set how far training is, for the next heartbeat."""
        with self._lock:
            self._progress, self._heartbeat_changed = progress, True

    @property
    def progress(self) -> Progress | None:
        """The progress that was set last."""
        return self._progress

    def set_batching(self, batching: Batching) -> None:
        """Set how a step is divided into micro-batches, for the next heartbeat."""
        with self._lock:
            self._batching, self._heartbeat_changed = batching, True

    @property
    def batching(self) -> Batching | None:
        """How a step is divided into micro-batches; None until that is known."""
        return self._batching

    def set_adapted(self, adapted: AdaptedLayers, warning: str = "") -> None:
        """Set which layers the adapter changes, and a warning about them that stays."""
        with self._lock:
            self._adapted, self._lasting_warning = adapted, warning
            self._heartbeat_changed = True

    @property
    def adapted(self) -> AdaptedLayers | None:
        """Which layers the adapter changes; None until that is known."""
        return self._adapted

    def set_evaluation(self, evaluation: Evaluation) -> None:
        """Set how good the model is on held-out examples, for the next heartbeat."""
        with self._lock:
            self._evaluation, self._heartbeat_changed = evaluation, True

    @property
    def evaluation(self) -> Evaluation | None:
        """How good the model is on held-out examples; None until that is known."""
        return self._evaluation

    def set_evaluation_warning(self, sentence: str) -> None:
        """Show a sentence about the evaluations; "" removes it. A repeated one is not logged."""
        with self._lock:
            if sentence == self._evaluation_warning:
                return
            self._evaluation_warning, self._heartbeat_changed = sentence, True
        if sentence:
            log.warning(self._redact(sentence))

    def warn(self, sentence: str) -> None:
        """Show one sentence about wasted GPU time; "" removes it. A repeated one is not logged."""
        with self._lock:
            if sentence == self._warning:
                return
            self._warning, self._heartbeat_changed = sentence, True
        if sentence:
            log.warning(self._redact(sentence))

    def set_wandb_problem(self, sentence: str) -> None:
        """Set why Weights & Biases does not get the metrics, for the next heartbeat."""
        with self._lock:
            self._wandb, self._heartbeat_changed = shorten(self._redact(sentence)), True

    @property
    def wandb_problem(self) -> str:
        """Why Weights & Biases does not get the metrics; empty while it does."""
        return self._wandb

    def watch_phase(self, current_phase: Callable[[], tuple[StepPhase | None, float]]) -> None:
        """Warn when a step waits for the environment for very long.

        ``current_phase`` returns the phase that training is in and its seconds so far.
        """
        self._current_phase = current_phase

    def report_commit(self, step: int) -> None:
        """Write a heartbeat at once: the checkpoint of ``step`` is committed."""
        with self._lock:
            self._commits += 1
            self._heartbeat_changed = True
        self._metrics.upload_at_once()
        self._wake.set()

    def append_metrics(self, row: MetricsRow) -> None:
        """Append a row to the run's metrics history."""
        self._metrics.append(row)

    def read_new_rows(self) -> list[MetricsRow]:
        """Return the rows of the metrics history since the last call, those of all attempts.

        Call it on the thread of training.
        """
        return self._metrics.read_new_rows()

    def upload_metrics_soon(self) -> None:
        """Upload the metrics history in the next pass, which begins now."""
        self._metrics.upload_at_once()
        self._wake.set()

    def upload_history(self) -> None:
        """Upload the metrics history and the rollouts now; raises ``StoreError``."""
        with self._metrics.lock:
            self._metrics.upload_at_once()
            self._upload_metrics()
        self._upload_rollouts()

    def queue_rollouts(
        self, step: int, rows: Sequence[dict[str, Any]], *, evaluated: bool = False
    ) -> None:
        """Queue the sampled rollouts of one step for upload, on the pod's disk.

        Those of an evaluation have a file of their own.
        """
        clean = (redact_json(row, self._redact) for row in rows)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in clean)
        name = f"{'eval-' if evaluated else ''}step-{step:08d}"
        part = self._rollouts / f"{name}.part"
        # A half character (a lone surrogate) becomes an escape, which JSON allows.
        part.write_bytes("".join(lines).encode(errors="backslashreplace"))
        with self._lock:
            part.replace(self._rollouts / name)

    def continue_history(self, step: int) -> None:
        """Copy the history of earlier attempts up to the step that this attempt resumes from."""
        self._metrics.continue_after(step)

    # --- requested by the operator --------------------------------------------------------------

    def take_save_request(self) -> bool:
        """Return whether a checkpoint was requested since the last call."""
        if not self._save_requested.is_set():
            return False
        self._save_requested.clear()
        return True

    @property
    def superseded(self) -> TrainerError | None:
        """The error with which this attempt has to end when another pod owns the run, else None."""
        return self._superseded

    # --- the thread -----------------------------------------------------------------------------

    def close(self) -> None:
        """Write everything a last time and stop."""
        self._closed.set()
        self._wake.set()
        self._thread.join(_LAST_PASS_SECONDS)

    def _run(self) -> None:
        self._try(self._skip_answered_request)
        while not self._closed.is_set():
            self._wake.wait(self._pass_seconds)
            self._wake.clear()
            self._write_all()
        self._metrics.upload_at_once()
        if self._log is not None:
            self._log.upload_at_once()
        self._heartbeat_changed = True
        self._write_all()

    def _write_all(self) -> None:
        tasks = (
            self._read_requests,
            self._upload_log,
            self._write_heartbeat,
            self._upload_metrics,
            self._upload_rollouts,
        )
        results = [self._try(task) for task in tasks]
        if all(results):
            self._failing = False

    def _try(self, task: Callable[[], None]) -> bool:
        try:
            task()
        except (StoreError, OSError) as error:
            if not self._failing:
                log.warning(
                    "the records in storage are late, retrying: %s", self._redact(str(error))
                )
            self._failing = True
            return False
        except TrainerError as error:
            self._superseded = error
            return False
        return True

    def _confirm_claim(self) -> None:
        """Confirm the claim, at most once per pass; raises ``TrainerError`` if it is superseded."""
        if self._superseded is not None:
            raise self._superseded
        if time.monotonic() - self._claim_confirmed >= self._pass_seconds:
            self._attempt.confirm()
            self._claim_confirmed = time.monotonic()

    def _skip_answered_request(self) -> None:
        """Ignore a save request that an earlier attempt has answered, with any save after it."""
        store, prefix = self._attempt.store, self._attempt.prefix
        if self._attempt.number == 1:
            return
        requests = [entry.modified for entry in store.list(names.control_key(prefix))]
        saves = [
            entry.modified
            for entry in store.list(names.attempts_prefix(prefix))
            if entry.key.endswith(f"/{names.MANIFEST}")
        ]
        if any(save > request for save in saves for request in requests if save and request):
            self._seen_save_request = self._control().save_request

    def _control(self) -> TrainerControl:
        try:
            return self._attempt.store.get_json(
                names.control_key(self._attempt.prefix), TrainerControl
            )
        except KeyNotFound:
            return TrainerControl()

    def _read_requests(self) -> None:
        request = self._control().save_request
        if request and request != self._seen_save_request:
            self._seen_save_request = request
            self._save_requested.set()
            log.info("a checkpoint was requested: %s", request)

    def _write_heartbeat(self) -> None:
        now = time.monotonic()
        with self._lock:
            if not self._heartbeat_changed and now - self._heartbeat_written < HEARTBEAT_SECONDS:
                return
        self._confirm_claim()
        waiting = wait_warning(*self._current_phase())
        with self._lock:
            self._heartbeat_changed = False
            sentences = (
                waiting,
                self._warning,
                self._evaluation_warning,
                self._lasting_warning,
            )
            warnings = filter(None, sentences)
            heartbeat = Heartbeat(
                run=self._attempt.run.run,
                attempt=self._attempt.number,
                pod=self._attempt.claim.pod,
                activity=self._activity,
                progress=self._progress,
                batching=self._batching,
                adapted=self._adapted,
                evaluation=self._evaluation,
                commits=self._commits,
                warning=shorten(self._redact("; ".join(warnings))),
                wandb=self._wandb,
                main_memory=main_memory.used_bytes(),
                updated=datetime.now(UTC),
            )
        try:
            self._attempt.store.put_json(names.heartbeat_key(self._attempt.run.run.uid), heartbeat)
        except StoreError:
            self._heartbeat_changed = True
            raise
        self._heartbeat_written = now

    def _upload_log(self) -> None:
        file = self._log
        if file is not None and file.is_due():
            size = file.path.stat().st_size
            data = file.path.read_bytes()[:size]
            self._attempt.store.put_bytes(file.key, data, "text/plain; charset=utf-8")
            file.record_upload(size)

    def _upload_metrics(self) -> None:
        with self._metrics.lock:
            if self._metrics.is_due():
                self._confirm_claim()
                self._metrics.upload()

    def _upload_rollouts(self) -> None:
        with self._rollouts_lock:
            for path in sorted(self._rollouts.glob("*step-????????")):
                self._confirm_claim()
                kind, _, step = path.name.rpartition("step-")
                key_of = names.eval_rollouts_key if kind else names.rollouts_key
                key = key_of(self._attempt.prefix, int(step))
                with path.open("rb") as file:
                    self._attempt.store.put_bytes(key, file.read(), "application/jsonl")
                    with self._lock:
                        # Newer rollouts of the step may have replaced the file meanwhile.
                        if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                            path.unlink()


class SilentReporter(Reporter):
    """The reporter of ranks above 0: it keeps values and writes nothing."""

    def append_metrics(self, row: MetricsRow) -> None:
        """Do nothing: rank 0 writes the same history."""

    def queue_rollouts(
        self, step: int, rows: Sequence[dict[str, Any]], *, evaluated: bool = False
    ) -> None:
        """Do nothing: rank 0 writes the rollouts of all ranks."""

    def read_new_rows(self) -> list[MetricsRow]:
        """Return nothing: rank 0 has the history."""
        return []

    def continue_history(self, step: int) -> None:
        """Do nothing: rank 0 writes the history."""

    def warn(self, sentence: str) -> None:
        """Do nothing: rank 0 warns."""

    def set_evaluation_warning(self, sentence: str) -> None:
        """Do nothing: rank 0 warns."""

    def close(self) -> None:
        """Do nothing: there is no thread."""

    def _run(self) -> None:
        return


class _GrowingFile:
    """A growing file that is uploaded whole, from time to time."""

    def __init__(self, key: str, path: Path, seconds: float) -> None:
        self.key = key
        self.path = path
        self._seconds = seconds
        self._uploaded_size = -1
        self._uploaded_at = -float("inf")

    def is_due(self) -> bool:
        """Return whether the file has changed and the pause since its last upload is over."""
        size = self.path.stat().st_size if self.path.exists() else -1
        pause = self._seconds * (1 + max(size, 0) // _BYTES_PER_PAUSE)
        return (
            size not in (-1, self._uploaded_size) and time.monotonic() - self._uploaded_at >= pause
        )

    def upload_at_once(self) -> None:
        """Skip the pause: the next pass uploads the file."""
        self._uploaded_at = -float("inf")

    def record_upload(self, size: int) -> None:
        """Record an upload of ``size`` bytes."""
        self._uploaded_size, self._uploaded_at = size, time.monotonic()


def wait_warning(phase: StepPhase | None, seconds: float) -> str:
    """Return a warning when the environment makes a step wait for very long, else ""."""
    if seconds < _LONG_WAIT_SECONDS or phase not in _WAITS_FOR:
        return ""
    return (
        f"this step has waited for {_WAITS_FOR[phase]} for {seconds // 60:.0f} minutes: set a "
        "time limit for what the environment waits for"
    )


def redact_json(value: Any, redact: Redactor) -> Any:
    """Return ``value`` as JSON types, with redacted texts; what is not JSON becomes text."""
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {str(key): redact_json(item, redact) for key, item in value.items()}
        case list() | tuple():
            return [redact_json(item, redact) for item in value]
        case _:
            return redact(str(value))
