"""Checkpoints between the trainer's folder and storage: snapshot, upload, choose, restore.

A save costs training a few hard links. A thread uploads the snapshots while training goes on:

- every adapter, in order, none skipped: they are small, and people list and use them;
- of the full trainer state, which only a resume needs, the newest there is when the line is free.

Both get a commit marker last, so what has none does not exist. A checkpoint can be resumed from
when both are there, and by then the run's history has arrived up to its step.
"""

import contextlib
import json
import logging
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from flashrun.api import names
from flashrun.api.records import FileEntry, Manifest
from flashrun.store import Store
from flashrun.store_errors import Corrupt, KeyExists, KeyNotFound, StoreError
from flashrun_trainer.pod.trainer_errors import TrainerError, explain
from flashrun_trainer.records.attempt import Attempt

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


class Place(NamedTuple):
    """Where a checkpoint is: newer steps sort higher, then newer attempts."""

    step: int
    attempt: int


def resumable(prefix: str, keys: Iterable[str]) -> list[Place]:
    """Return the checkpoints among ``keys`` with both markers, the best to resume from first."""
    found: dict[Place, set[str]] = {}
    for key in keys:
        if (parts := names.parse_step_key(prefix, key)) is not None:
            found.setdefault(Place(parts.step, parts.attempt), set()).add(parts.path)
    markers = {names.MANIFEST, names.STATE_MANIFEST}
    return sorted((place for place, paths in found.items() if markers <= paths), reverse=True)


def restore(store: Store, prefix: str, folder: Path) -> Place | None:
    """Download the newest checkpoint whose every byte is right to ``folder``; return its place.

    Returns None, with nothing in ``folder``, when there is none.
    """
    keys = (entry.key for entry in store.list(names.attempts_prefix(prefix)))
    for place in resumable(prefix, keys):
        try:
            fetch(store, prefix, place, folder)
        except (Corrupt, KeyNotFound) as error:
            log.warning("step %d is damaged, trying an older one: %s", place.step, error)
            shutil.rmtree(folder, ignore_errors=True)
            continue
        log.info("resuming from step %d of attempt %d", place.step, place.attempt)
        return place
    return None


def fetch(store: Store, prefix: str, place: Place, folder: Path) -> None:
    """Download one checkpoint to ``folder``; raises ``StoreError`` unless every byte is right."""
    where = names.step_prefix(prefix, place.attempt, place.step)
    for marker, part in ((names.MANIFEST, "adapter"), (names.STATE_MANIFEST, "state")):
        record = store.download_folder(where, folder / "parts", marker)
        if not _belongs(record, prefix, place) or not (folder / "parts" / part).is_dir():
            raise Corrupt(f"{where}{marker} is not of this checkpoint")
        _flatten(folder / "parts" / part, folder)
    shutil.rmtree(folder / "parts")


def _belongs(record: Manifest, prefix: str, place: Place) -> bool:
    """Say whether a manifest was written for the place where it lies."""
    run = record.run
    return (
        run is not None
        and prefix == names.run_prefix(run.namespace, run.name, run.uid)
        and place == (record.step, record.attempt)
    )


def _flatten(part: Path, folder: Path) -> None:
    for path in part.iterdir():
        path.replace(folder / path.name)


@dataclass(frozen=True)
class Snapshot:
    """One save, kept apart from the trainer's own folder, which it may delete."""

    step: int
    adapter: Path
    state: Path
    lora_rank: int
    lora_alpha: int
    resumable: bool = True
    """Whether there is a state to upload."""


def snapshot(
    checkpoint: Path, outbox: Path, step: int, base_model: str, resumable: bool = True
) -> Snapshot:
    """Hard-link what a checkpoint folder holds of adapter and state; the rest stays behind."""
    adapter, state = outbox / f"{step}-adapter", outbox / f"{step}-state"
    _link(checkpoint, adapter / "adapter", _ADAPTER_FILES)
    if resumable:
        _link(checkpoint, state / "state", _STATE_FILES)
    config = portable_config(adapter / "adapter" / "adapter_config.json", base_model)
    return Snapshot(step, adapter, state, config["r"], config["lora_alpha"], resumable)


def portable_config(path: Path, base_model: str) -> dict[str, int]:
    """Name the base model in an adapter's config by its id: the pod's folder means nothing later.

    The file is replaced, not changed: it may be a hard link.
    """
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base_model
    path.unlink()
    path.write_text(json.dumps(config, indent=2, sort_keys=True))
    return {"r": int(config["r"]), "lora_alpha": int(config["lora_alpha"])}


def _link(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    target.mkdir(parents=True)
    for pattern in patterns:
        for path in source.glob(pattern):
            _same(path, target / path.name)


def _same(path: Path, target: Path) -> None:
    """Let ``target`` be the same file, or a copy where the file system knows no hard links."""
    with contextlib.suppress(OSError):
        os.link(path, target)
        return
    shutil.copyfile(path, target)


@dataclass
class Uploader:
    """Uploads snapshots in the background until ``finish``."""

    attempt: Attempt
    base_model: str
    on_commit: Callable[[int], None]
    """Called with the step of every adapter that has arrived."""
    put_history: Callable[[], None] = lambda: None
    """Called before a state is committed: a run that goes on from it has its history, too."""
    _adapters: deque[Snapshot] = field(default_factory=deque)
    _state: Snapshot | None = None
    _error: TrainerError | None = None
    _trouble: str = ""
    _adapter_step: int = 0
    _state_step: int = 0
    _closing: bool = False
    _done: bool = False
    _abandoned: bool = False

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)
        self._thread.start()

    @property
    def error(self) -> TrainerError | None:
        """Why nothing can be uploaded any more: the attempt is superseded, or something broke."""
        return self._error

    @property
    def resumable_step(self) -> int:
        """Step of the newest state that has arrived; 0 as long as its adapter has not."""
        return self._state_step if self._state_step <= self._adapter_step else 0

    def put(self, taken: Snapshot) -> None:
        """Queue a snapshot; an older state that still waits is dropped for this one."""
        with self._changed:
            self._adapters.append(taken)
            if taken.resumable:
                if self._state is not None:
                    shutil.rmtree(self._state.state)
                self._state = taken
            self._changed.notify()

    def finish(self, seconds: float) -> bool:
        """Wait until everything has arrived; False when it has not within ``seconds``.

        Whoever asks again is not made to wait again.
        """
        if self._abandoned:
            return self._done
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        self._abandoned = True
        return self._done

    @property
    def trouble(self) -> str:
        """What the store said last, while it fails; empty when all is well."""
        return self._trouble

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._adapters or self._state or self._closing)
                adapter = self._adapters[0] if self._adapters else None
                if adapter is None and self._state is None:
                    self._done = True
                    return
            if adapter is not None and not self._deliver(adapter, self._upload_adapter):
                return
            with self._changed:
                if adapter is not None:
                    self._adapters.popleft()
                # The newest state goes while older adapters wait, or on a slow line none would.
                state, self._state = self._state, None
            if state is not None and not self._deliver(state, self._upload_state):
                return

    def _deliver(self, taken: Snapshot, upload: Callable[[Snapshot], None]) -> bool:
        """Upload until it works; False when the attempt may not commit any more."""
        pause = _RETRY_SECONDS
        while not self._abandoned:
            try:
                upload(taken)
            except TrainerError as error:
                self._error = error
                return False
            except StoreError as error:
                self._trouble = str(error)
                log.warning("step %d is not uploaded yet, trying again: %s", taken.step, error)
                threading.Event().wait(pause)
                pause = min(2 * pause, _LONGEST_RETRY_SECONDS)
            except Exception as error:
                # Training whose saves go nowhere must not go on for hours.
                log.exception("step %d cannot be uploaded", taken.step)
                self._error = explain(error)
                return False
            else:
                self._trouble = ""
                return True
        return False

    def _upload_adapter(self, taken: Snapshot) -> None:
        self._commit(taken, taken.adapter, "checkpoint", names.MANIFEST)
        log.info("checkpoint %s is uploaded", self._ref(taken.step))
        shutil.rmtree(taken.adapter)
        self._adapter_step = taken.step
        self.on_commit(taken.step)

    def _upload_state(self, taken: Snapshot) -> None:
        self.put_history()
        self._commit(taken, taken.state, "state", names.STATE_MANIFEST)
        self._state_step = taken.step
        shutil.rmtree(taken.state)

    def _commit(self, taken: Snapshot, folder: Path, kind: str, marker: str) -> None:
        def manifest(files: tuple[FileEntry, ...]) -> Manifest:
            self.attempt.confirm()
            return Manifest(
                kind="state" if kind == "state" else "checkpoint",
                run=self.attempt.run.run,
                attempt=self.attempt.number,
                step=taken.step,
                base_model=self.base_model,
                lora_rank=taken.lora_rank,
                lora_alpha=taken.lora_alpha,
                created=datetime.now(UTC),
                files=files,
            )

        prefix = names.step_prefix(self.attempt.prefix, self.attempt.number, taken.step)
        try:
            self.attempt.store.upload_folder(prefix, folder, manifest, marker)
        except KeyExists:
            # Only this pod writes below its attempt: an earlier try got through after all.
            log.info("step %d had arrived before", taken.step)

    def _ref(self, step: int) -> str:
        return names.checkpoint_ref(self.attempt.run.run.name, step)
