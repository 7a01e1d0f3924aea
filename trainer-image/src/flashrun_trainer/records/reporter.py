"""What an attempt tells the world while it runs, from one background thread.

Training hands over values and never waits. The thread writes the heartbeat, the lossless metrics,
the sampled rollouts and the log to storage, and reads the operator's requests. Storage that is
away for a while costs nothing but freshness: everything is written again with the next pass.

All but the log is the run's, and the next attempt goes on with it: before any of it is written, the
claim is confirmed.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from flashrun.api import names
from flashrun.api.reasons import Activity
from flashrun.api.records import Batching, Heartbeat, MetricsRow, Progress, TrainerControl
from flashrun.store_errors import KeyNotFound, StoreError
from flashrun_trainer.pod.mounts import Pod
from flashrun_trainer.pod.trainer_errors import Redactor, TrainerError, shortened
from flashrun_trainer.records.attempt import Attempt
from flashrun_trainer.records.timing import Phase

log = logging.getLogger(__name__)

PASS_SECONDS: Final = 3.0
"""Time between two looks at what has changed and what is asked for."""
_HEARTBEAT_SECONDS: Final = 15.0
_METRICS_SECONDS: Final = 15.0
_LOG_SECONDS: Final = 10.0
_LONG_SECONDS: Final = 600.0
"""After this long, somebody should know what a step is waiting for."""
_WAITS_FOR: Final[dict[Phase | None, str]] = {
    Phase.SCORING: "scores",
    Phase.ENVIRONMENT: "the environment's replies",
}
_LAST_PASS_SECONDS: Final = 30.0
"""Longest wait for the last words; storage that hangs must not keep a pod from ending."""
_BIG_FILE: Final = 4 * 1024 * 1024
"""Histories are uploaded whole; each so many bytes make the pauses one length longer."""
_WAITING_ROLLOUTS: Final = 200


class Reporter:
    """Reports one attempt until it is closed."""

    def __init__(
        self,
        attempt: Attempt,
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
        self._warning = ""
        self._under_way: Callable[[], tuple[Phase | None, float]] = lambda: (None, 0.0)
        self._commits = 0
        self._rollouts: deque[tuple[int, bytes]] = deque(maxlen=_WAITING_ROLLOUTS)
        self._metrics = _Upload(
            names.metrics_key(attempt.prefix), work / "metrics.jsonl", _METRICS_SECONDS
        )
        log_key = names.log_key(attempt.prefix, attempt.number)
        self._log = None if log_path is None else _Upload(log_key, log_path, _LOG_SECONDS)
        self._heartbeat_changed = True
        self._live_put = 0.0
        self._confirmed = -float("inf")
        self._seen_request = ""
        self._save_wanted = threading.Event()
        self._superseded: TrainerError | None = None
        self._failing = False
        self._wake = threading.Event()
        self._wake.set()  # the first sign of life is not waited for
        self._closed = threading.Event()
        self._pass_seconds = pass_seconds
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    # --- what training hands over ---------------------------------------------------------------

    def activity(self, name: Activity) -> None:
        """Report what the trainer does."""
        with self._lock:
            self._activity, self._heartbeat_changed = name, True
        self._wake.set()

    def progress(self, progress: Progress) -> None:
        """Say how far training is."""
        with self._lock:
            self._progress, self._heartbeat_changed = progress, True

    @property
    def latest(self) -> Progress | None:
        """The progress that was reported last."""
        return self._progress

    def batching(self, batching: Batching) -> None:
        """Say how a step is cut up."""
        with self._lock:
            self._batching, self._heartbeat_changed = batching, True

    @property
    def batched(self) -> Batching | None:
        """How a step is cut up, once that is known."""
        return self._batching

    def warn(self, sentence: str) -> None:
        """Show one sentence about wasted time; the same one is logged once, "" takes it back."""
        with self._lock:
            if sentence == self._warning:
                return
            self._warning, self._heartbeat_changed = sentence, True
        if sentence:
            log.warning(self._redact(sentence))

    def watch(self, under_way: Callable[[], tuple[Phase | None, float]]) -> None:
        """Warn when a phase that the environment decides on does not end.

        ``under_way`` returns the phase that training is in and its seconds so far.
        """
        self._under_way = under_way

    def committed(self, step: int) -> None:
        """Say at once that the checkpoint of ``step`` has arrived."""
        with self._lock:
            self._commits += 1
            self._heartbeat_changed = True
        self._metrics.at_once()
        self._wake.set()

    def metrics(self, row: MetricsRow) -> None:
        """Append a row to the run's history."""
        with self._metrics.path.open("a") as file:
            file.write(row.model_dump_json() + "\n")

    def put_history(self) -> None:
        """Upload the history now; raises ``StoreError``."""
        with self._metrics.lock:
            self._metrics.at_once()
            self._put_metrics()

    def rollouts(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        """Keep a sample of one step's rollouts."""
        clean = (redacted(row, self._redact) for row in rows)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in clean)
        with self._lock:
            self._rollouts.append((step, "".join(lines).encode()))

    def continue_history(self, step: int) -> None:
        """Take over the rows of earlier attempts up to the step that this one resumes from."""
        try:
            data = self._attempt.store.get_bytes(names.metrics_key(self._attempt.prefix))
        except KeyNotFound:
            return
        with self._metrics.lock:  # half of it must not be taken for the whole
            self._metrics.path.write_text(rows_until(data.decode(errors="replace"), step))

    # --- what the operator asks -----------------------------------------------------------------

    def take_save_request(self) -> bool:
        """Say whether a checkpoint is wanted now; a request is answered once."""
        if not self._save_wanted.is_set():
            return False
        self._save_wanted.clear()
        return True

    @property
    def superseded(self) -> TrainerError | None:
        """Why this attempt has to end, when another pod owns the run."""
        return self._superseded

    # --- the thread -----------------------------------------------------------------------------

    def close(self) -> None:
        """Write everything once more and stop."""
        self._closed.set()
        self._wake.set()
        self._thread.join(_LAST_PASS_SECONDS)

    def _run(self) -> None:
        self._try(self._pass_over_answered_request)
        while not self._closed.is_set():
            self._wake.wait(self._pass_seconds)
            self._wake.clear()
            self._pass()
        self._metrics.at_once()
        if self._log is not None:
            self._log.at_once()
        self._heartbeat_changed = True
        self._pass()

    def _pass(self) -> None:
        tasks = (
            self._look_for_requests,
            self._put_log,
            self._put_live,
            self._put_metrics,
            self._put_rollouts,
        )
        results = [self._try(task) for task in tasks]
        if all(results):
            self._failing = False

    def _try(self, task: Callable[[], None]) -> bool:
        try:
            task()
        except (StoreError, OSError) as error:
            if not self._failing:
                log.warning("a report is late, trying again: %s", self._redact(str(error)))
            self._failing = True
            return False
        except TrainerError as error:
            self._superseded = error
            return False
        return True

    def _confirm(self) -> None:
        """Make sure, once a pass, that the run is ours; raises ``TrainerError`` when it is not."""
        if self._superseded is not None:
            raise self._superseded
        if time.monotonic() - self._confirmed >= self._pass_seconds:
            self._attempt.confirm()
            self._confirmed = time.monotonic()

    def _pass_over_answered_request(self) -> None:
        """Take a request for seen that an earlier attempt has answered, with any save after it."""
        store, prefix = self._attempt.store, self._attempt.prefix
        if self._attempt.number == 1:
            return
        asked = [entry.modified for entry in store.list(names.control_key(prefix))]
        saves = [
            entry.modified
            for entry in store.list(names.attempts_prefix(prefix))
            if entry.key.endswith(f"/{names.MANIFEST}")
        ]
        if any(save > request for save in saves for request in asked if save and request):
            self._seen_request = self._control().save_request

    def _control(self) -> TrainerControl:
        try:
            return self._attempt.store.get_json(
                names.control_key(self._attempt.prefix), TrainerControl
            )
        except KeyNotFound:
            return TrainerControl()

    def _look_for_requests(self) -> None:
        request = self._control().save_request
        if request and request != self._seen_request:
            self._seen_request = request
            self._save_wanted.set()
            log.info("a checkpoint is asked for: %s", request)

    def _put_live(self) -> None:
        now = time.monotonic()
        with self._lock:
            if not self._heartbeat_changed and now - self._live_put < _HEARTBEAT_SECONDS:
                return
        self._confirm()
        waiting = waits(*self._under_way())
        with self._lock:
            self._heartbeat_changed = False
            heartbeat = Heartbeat(
                run=self._attempt.run.run,
                attempt=self._attempt.number,
                pod=self._attempt.claim.pod,
                activity=self._activity,
                progress=self._progress,
                batching=self._batching,
                commits=self._commits,
                warning=shortened(self._redact("; ".join(filter(None, (waiting, self._warning))))),
                updated=datetime.now(UTC),
            )
        try:
            self._attempt.store.put_json(names.heartbeat_key(self._attempt.run.run.uid), heartbeat)
        except StoreError:
            self._heartbeat_changed = True
            raise
        self._live_put = now

    def _put_log(self) -> None:
        if self._log is not None and self._log.is_due():
            self._put_file(self._log)

    def _put_metrics(self) -> None:
        with self._metrics.lock:
            if self._metrics.is_due():
                self._confirm()
                self._put_file(self._metrics)

    def _put_file(self, upload: "_Upload") -> None:
        size = upload.path.stat().st_size
        data = upload.path.read_bytes()[:size]
        self._attempt.store.put_bytes(upload.key, data, "text/plain; charset=utf-8")
        upload.done(size)

    def _put_rollouts(self) -> None:
        while self._rollouts:
            self._confirm()
            step, data = self._rollouts[0]
            key = names.rollouts_key(self._attempt.prefix, step)
            self._attempt.store.put_bytes(key, data, "application/jsonl")
            with self._lock:
                # A full queue has let go of it meanwhile, and begins with one that was not sent.
                if self._rollouts[0] == (step, data):
                    self._rollouts.popleft()


class Silent(Reporter):
    """The reporter of a process that leaves reporting to the first one."""

    def metrics(self, row: MetricsRow) -> None:
        """Leave the history to the first process, which has the same."""

    def rollouts(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        """Leave the rollouts to the first process."""

    def continue_history(self, step: int) -> None:
        """Leave the history to the first process."""

    def warn(self, sentence: str) -> None:
        """Leave it to the first process to warn."""

    def close(self) -> None:
        """Leave everything as it is."""

    def _run(self) -> None:
        return


class _Upload:
    """A growing file that is uploaded whole, from time to time."""

    def __init__(self, key: str, path: Path, seconds: float) -> None:
        self.key = key
        self.path = path
        self.lock = threading.RLock()
        """Held while it is uploaded, so that an older content never follows a newer one."""
        self._seconds = seconds
        self._size = -1
        self._time = -float("inf")

    def is_due(self) -> bool:
        """Say whether the file has grown and its pause is over."""
        size = self.path.stat().st_size if self.path.exists() else -1
        pause = self._seconds * (1 + max(size, 0) // _BIG_FILE)
        return size not in (-1, self._size) and time.monotonic() - self._time >= pause

    def at_once(self) -> None:
        """Let the next pass upload the file, without a pause."""
        self._time = -float("inf")

    def done(self, size: int) -> None:
        """Note what was uploaded."""
        self._size, self._time = size, time.monotonic()


@contextmanager
def preparing(pod: Pod, doing: Callable[[Pod], str]) -> Iterator[None]:
    """Tell again and again what an init container is doing; there is no attempt yet to report."""
    over = threading.Event()

    def tell() -> None:
        said = ""
        while not over.wait(_HEARTBEAT_SECONDS):
            # Whatever is wrong here, the container itself will say it.
            with suppress(StoreError, TrainerError, OSError):
                activity = doing(pod)
                if activity != said:
                    log.info("%s", activity)
                said, run = activity, pod.run().run
                heartbeat = Heartbeat(
                    run=run, attempt=0, pod=pod.name, activity=activity, updated=datetime.now(UTC)
                )
                pod.store().put_json(names.heartbeat_key(run.uid), heartbeat)

    if pod.index == 0:
        threading.Thread(target=tell, name="preparing", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def waits(phase: Phase | None, seconds: float) -> str:
    """Return a sentence about a phase that has taken ``seconds``, or an empty string."""
    if seconds < _LONG_SECONDS or phase not in _WAITS_FOR:
        return ""
    return (
        f"this step has waited for {_WAITS_FOR[phase]} for {seconds // 60:.0f} minutes: give what "
        "the environment waits for a time limit"
    )


def redacted(value: Any, redact: Redactor) -> Any:
    """Return what JSON can hold of ``value``, without the secrets in its texts."""
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {str(key): redacted(item, redact) for key, item in value.items()}
        case list() | tuple():
            return [redacted(item, redact) for item in value]
        case _:
            return redact(str(value))


def rows_until(text: str, step: int) -> str:
    """Return the lines of a history up to ``step``; what comes after is going to happen again."""
    rows = []
    for line in text.splitlines():
        try:
            row = MetricsRow.model_validate_json(line)
        except ValueError:
            continue
        if row.step <= step:
            rows.append(line + "\n")
    return "".join(rows)
