"""Checkpoints between the trainer's folder and storage: snapshot, upload, choose, restore.

A save costs training a few hard links only. A background thread uploads the snapshots while
training continues:

- every adapter, in order, without skipping any: they are small, and people list and use them;
- of the full trainer state, which only a resume needs, the newest one when the thread is free.

Each gets its commit marker last, so what has no marker does not exist. A checkpoint can be resumed
from when both markers exist; by then the run's history has been uploaded up to that step.
"""

import contextlib
import json
import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from flashrun.api import names
from flashrun.api.records import CheckpointEvaluation, FileEntry, Manifest
from flashrun.store import Store
from flashrun.store_errors import Corrupt, KeyExists, KeyNotFound, StoreError
from flashrun_trainer.pod.hard_links import link_or_copy
from flashrun_trainer.pod.trainer_errors import TrainerError, classify
from flashrun_trainer.records.attempts import ClaimedAttempt

log = logging.getLogger(__name__)

_ADAPTER_FILES: Final = ("adapter_model*", "adapter_config.json")
_STATE_FILES: Final = (
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "trainer_state.json",
    "rng_state*.pth",
)
_RETRY_SECONDS: Final = 2.0
_LONGEST_RETRY_SECONDS: Final = 30.0


class CheckpointId(NamedTuple):
    """A checkpoint of a run; newer steps sort higher, then newer attempts."""

    step: int
    attempt: int


class StoredEvaluation(NamedTuple):
    """What storage has of the evaluation of a step."""

    scored: bool = False
    stopped: bool = False
    """Whether an attempt was stopped in it."""


def resumable_checkpoints(prefix: str, keys: Iterable[str]) -> list[CheckpointId]:
    """Return the checkpoints among ``keys`` that have both markers, the newest first."""
    paths_of: dict[CheckpointId, set[str]] = {}
    for key in keys:
        if (parts := names.parse_step_key(prefix, key)) is not None:
            paths_of.setdefault(CheckpointId(parts.step, parts.attempt), set()).add(parts.path)
    markers = {names.MANIFEST, names.STATE_MANIFEST}
    complete = (checkpoint for checkpoint, paths in paths_of.items() if markers <= paths)
    return sorted(complete, reverse=True)


def restore(store: Store, prefix: str, folder: Path) -> CheckpointId | None:
    """Download the newest intact checkpoint to ``folder``, and return which one it is.

    A checkpoint is intact when each file has the size and the SHA-256 of its manifest. Returns
    None, with nothing in ``folder``, when there is no intact checkpoint.
    """
    keys = (entry.key for entry in store.list(names.attempts_prefix(prefix)))
    for checkpoint in resumable_checkpoints(prefix, keys):
        try:
            download_checkpoint(store, prefix, checkpoint, folder)
        except (Corrupt, KeyNotFound) as error:
            log.warning("step %d is damaged, trying an older one: %s", checkpoint.step, error)
            shutil.rmtree(folder, ignore_errors=True)
            continue
        log.info("resuming from step %d of attempt %d", checkpoint.step, checkpoint.attempt)
        return checkpoint
    return None


def download_checkpoint(store: Store, prefix: str, checkpoint: CheckpointId, folder: Path) -> None:
    """Download one checkpoint to ``folder``; raises ``StoreError`` unless it is intact."""
    where = names.step_prefix(prefix, checkpoint.attempt, checkpoint.step)
    for marker, part in ((names.MANIFEST, "adapter"), (names.STATE_MANIFEST, "state")):
        record = store.download_folder(where, folder / "parts", marker)
        belongs = _is_manifest_of(checkpoint, prefix, record)
        if not belongs or not (folder / "parts" / part).is_dir():
            raise Corrupt(f"{where}{marker} does not belong to this checkpoint")
        _move_files(folder / "parts" / part, folder)
    shutil.rmtree(folder / "parts")


def _is_manifest_of(checkpoint: CheckpointId, prefix: str, manifest: Manifest) -> bool:
    """Return whether a manifest was written for this checkpoint, and not copied from another."""
    run = manifest.run
    return (
        run is not None
        and prefix == names.run_prefix(run.namespace, run.name, run.uid)
        and checkpoint == (manifest.step, manifest.attempt)
    )


def _move_files(part: Path, folder: Path) -> None:
    for path in part.iterdir():
        path.replace(folder / path.name)


def read_evaluation(store: Store, prefix: str, step: int) -> StoredEvaluation:
    """Return what the manifests of ``step`` say about its evaluation, in all attempts."""
    scored = stopped = False
    for entry in store.list(names.attempts_prefix(prefix)):
        parts = names.parse_step_key(prefix, entry.key)
        if parts is None or (parts.step, parts.path) != (step, names.MANIFEST):
            continue
        with contextlib.suppress(Corrupt, KeyNotFound):
            manifest = store.get_json(entry.key, Manifest)
            scored |= manifest.evaluation is not None
            stopped |= manifest.evaluation_stopped
    return StoredEvaluation(scored, stopped)


@dataclass(frozen=True)
class Snapshot:
    """The files of one save, outside the trainer's own folder, until they are uploaded."""

    step: int
    adapter: Path
    state: Path
    lora_rank: int
    lora_alpha: int
    evaluation: CheckpointEvaluation | None = None
    evaluation_stopped: bool = False


def take_snapshot(
    checkpoint: Path,
    outbox: Path,
    step: int,
    base_model: str,
    evaluation: CheckpointEvaluation | None = None,
    *,
    evaluation_stopped: bool = False,
) -> Snapshot:
    """Hard-link the adapter and state files of a checkpoint folder; other files are left out."""
    adapter, state = outbox / f"{step}-adapter", outbox / f"{step}-state"
    _link(checkpoint, adapter / "adapter", _ADAPTER_FILES)
    _link(checkpoint, state / "state", _STATE_FILES)
    config = write_portable_config(adapter / "adapter" / "adapter_config.json", base_model)
    rank, alpha = config["r"], config["lora_alpha"]
    return Snapshot(step, adapter, state, rank, alpha, evaluation, evaluation_stopped)


def write_portable_config(path: Path, base_model: str) -> dict[str, int]:
    """Put the base model's id into an adapter's config, and return ``r`` and ``lora_alpha``.

    PEFT writes the pod's folder there, which does not exist elsewhere. Where the config names the
    class of the base model (``auto_mapping``), PEFT's loaders use it only without a task type. The
    file is replaced, not changed: it may be a hard link.
    """
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base_model
    if config.get("auto_mapping"):
        config["task_type"] = None
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # PEFT writes a set
    path.unlink()
    path.write_text(json.dumps(config, indent=2, sort_keys=True))
    return {"r": int(config["r"]), "lora_alpha": int(config["lora_alpha"])}


def _link(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    target.mkdir(parents=True)
    for pattern in patterns:
        for path in source.glob(pattern):
            link_or_copy(path, target / path.name)


@dataclass
class Uploader:
    """Uploads snapshots in a background thread until ``finish`` is called."""

    attempt: ClaimedAttempt
    base_model: str
    on_commit: Callable[[int], None]
    """Called with the step of every adapter that is committed."""
    upload_history: Callable[[], None] = lambda: None
    """Called before a state is committed, so that a resume from it also finds the history."""
    _adapters: deque[Snapshot] = field(default_factory=deque)
    _state: Snapshot | None = None
    _error: TrainerError | None = None
    _storage_error: str = ""
    _adapter_step: int = 0
    _state_step: int = 0
    _done: bool = False
    _abandoned: bool = False

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._finishing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)
        self._thread.start()

    @property
    def error(self) -> TrainerError | None:
        """Why nothing can be uploaded any more: the attempt is superseded, or an upload failed."""
        return self._error

    @property
    def resumable_step(self) -> int:
        """Step of the newest state that is committed; 0 while its adapter is not."""
        return self._state_step if self._state_step <= self._adapter_step else 0

    def continue_from(self, step: int) -> None:
        """Remember the step from which this attempt resumes: its checkpoint is committed."""
        self._adapter_step = self._state_step = step

    def put(self, snapshot: Snapshot, urgent: bool = False) -> None:
        """Queue a snapshot; it replaces an older state that is still waiting.

        An ``urgent`` one goes before the adapters that are still waiting.
        """
        with self._changed:
            if urgent:
                self._adapters.appendleft(snapshot)
            else:
                self._adapters.append(snapshot)
            if self._state is not None:
                shutil.rmtree(self._state.state)
            self._state = snapshot
            self._changed.notify()

    def put_adapter(self, snapshot: Snapshot) -> None:
        """Queue the adapter of a snapshot whose state an earlier attempt has committed."""
        shutil.rmtree(snapshot.state)
        with self._changed:
            self._adapters.append(snapshot)
            self._changed.notify()

    def finish(self, seconds: float) -> bool:
        """Wait until everything is uploaded; return False if that takes longer than ``seconds``.

        A second call does not wait again.
        """
        if self._abandoned:
            return self._done
        with self._changed:
            self._finishing.set()
            self._changed.notify()
        self._thread.join(seconds)
        self._abandoned = True
        return self._done

    @property
    def storage_error(self) -> str:
        """The last error of storage while an upload fails; empty when the uploads work."""
        return self._storage_error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._adapters or self._state or self._finishing.is_set()
                )
                adapter = self._adapters.popleft() if self._adapters else None
                if adapter is None and self._state is None:
                    self._done = True
                    return
            if adapter is not None and not self._deliver(adapter, self._upload_adapter):
                return
            with self._changed:
                # Upload the newest state before the remaining adapters: on a slow link it would
                # otherwise never be sent.
                state, self._state = self._state, None
            if state is not None and not self._deliver(state, self._upload_state):
                return

    def _deliver(self, snapshot: Snapshot, upload: Callable[[Snapshot], None]) -> bool:
        """Upload with retries; return False when the attempt may not commit any more."""
        pause = _RETRY_SECONDS
        while not self._abandoned:
            try:
                upload(snapshot)
            except TrainerError as error:
                self._error = error
                return False
            except StoreError as error:
                self._storage_error = str(error)
                log.warning("step %d is not uploaded yet, retrying: %s", snapshot.step, error)
                if self._finishing.wait(pause):
                    time.sleep(_RETRY_SECONDS)  # long pauses are for training that continues
                pause = min(2 * pause, _LONGEST_RETRY_SECONDS)
            except Exception as error:
                # Fail now: training would otherwise continue for hours without saving anything.
                log.exception("step %d cannot be uploaded", snapshot.step)
                self._error = classify(error)
                return False
            else:
                self._storage_error = ""
                return True
        return False

    def _upload_adapter(self, snapshot: Snapshot) -> None:
        self._commit(snapshot, snapshot.adapter, "checkpoint", names.MANIFEST)
        log.info("checkpoint %s is uploaded", self._ref(snapshot.step))
        shutil.rmtree(snapshot.adapter)
        self._adapter_step = max(self._adapter_step, snapshot.step)
        self.on_commit(snapshot.step)

    def _upload_state(self, snapshot: Snapshot) -> None:
        self.upload_history()
        self._commit(snapshot, snapshot.state, "state", names.STATE_MANIFEST)
        self._state_step = snapshot.step
        shutil.rmtree(snapshot.state)

    def _commit(self, snapshot: Snapshot, folder: Path, kind: str, marker: str) -> None:
        def manifest(files: tuple[FileEntry, ...]) -> Manifest:
            self.attempt.confirm()
            return Manifest(
                kind="state" if kind == "state" else "checkpoint",
                run=self.attempt.run.run,
                attempt=self.attempt.number,
                step=snapshot.step,
                base_model=self.base_model,
                lora_rank=snapshot.lora_rank,
                lora_alpha=snapshot.lora_alpha,
                evaluation=snapshot.evaluation if kind == "checkpoint" else None,
                evaluation_stopped=snapshot.evaluation_stopped and kind == "checkpoint",
                created=datetime.now(UTC),
                files=files,
            )

        prefix = names.step_prefix(self.attempt.prefix, self.attempt.number, snapshot.step)
        try:
            self.attempt.store.upload_folder(prefix, folder, manifest, marker)
        except KeyExists:
            # Only this pod writes below its attempt: an earlier try has succeeded after all.
            log.info("step %d was already uploaded", snapshot.step)

    def _ref(self, step: int) -> str:
        return names.checkpoint_ref(self.attempt.run.run.name, step)
