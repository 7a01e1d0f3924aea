"""Which checkpoints and adapters in storage count, and which one of several is the newest.

A manifest is written last: it commits a checkpoint or an adapter when it belongs to the run and
the place that it lies in, and every file that it lists exists with the listed size.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, Self

from flashrun.api import names
from flashrun.api.records import Manifest

SizeOf = Callable[[str], int | None]
"""Returns the size of the object with a key, or None when there is no such object."""


class CommitMarker(NamedTuple):
    """The key of a manifest, and what it commits: the checkpoint of a step, or the adapter."""

    key: str
    uid: str
    attempt: int | None = None
    step: int | None = None

    @property
    def prefix(self) -> str:
        """The prefix below which the committed files lie."""
        return self.key.removesuffix(names.MANIFEST)


class CommitSummary(NamedTuple):
    """A checkpoint or an adapter that is whole, as far as decisions need to know it."""

    step: int
    attempt: int
    size: int
    """Bytes of all its files."""
    created: datetime
    score: float | None = None
    """Of its evaluation, if it has one."""
    evaluation_stopped: bool = False
    """Whether an attempt was stopped in its evaluation, and no other one has made it up."""

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Return what decisions need of ``manifest``."""
        step, attempt, evaluation = manifest.step or 0, manifest.attempt or 0, manifest.evaluation
        score = None if evaluation is None else evaluation.score
        stopped = manifest.evaluation_stopped
        return cls(step, attempt, manifest.size, manifest.created, score, stopped)


class Commit(NamedTuple):
    """A checkpoint or an adapter that is whole, with its manifest."""

    marker: CommitMarker
    manifest: Manifest


def find_markers(prefix: str, uid: str, keys: Iterable[str]) -> Iterator[CommitMarker]:
    """Yield the markers among ``keys`` of the run ``uid``, whose files lie below ``prefix``."""
    adapter = names.adapter_prefix(prefix) + names.MANIFEST
    for key in keys:
        step_key = names.parse_step_key(prefix, key)
        if step_key is not None and step_key.path == names.MANIFEST:
            yield CommitMarker(key, uid, step_key.attempt, step_key.step)
        elif key == adapter:
            yield CommitMarker(key, uid)


def find_markers_by_name(namespace: str, run: str, keys: Iterable[str]) -> Iterator[CommitMarker]:
    """Yield the markers among ``keys`` of all runs that had the name ``run``, one after another."""
    home = names.run_name_prefix(namespace, run)
    for key in keys:
        uid = key.removeprefix(home).partition("/")[0]
        yield from find_markers(names.run_prefix(namespace, run, uid), uid, (key,))


def committed(
    candidates: Iterable[tuple[CommitMarker, Manifest | None]], size_of: SizeOf
) -> Iterator[Commit]:
    """Yield the candidates that are whole; a manifest that could not be read is None."""
    for marker, manifest in candidates:
        if manifest is not None and is_committed(marker, manifest, size_of):
            yield Commit(marker, manifest)


def newest_by_step(checkpoints: Iterable[CommitSummary]) -> tuple[CommitSummary, ...]:
    """Return the checkpoints in the order of their steps; of one step, the newest attempt's."""
    newest = {checkpoint.step: checkpoint for checkpoint in sorted(checkpoints)}
    return tuple(newest[step] for step in sorted(newest))


def newest_adapter(commits: Iterable[Commit]) -> Commit | None:
    """Return the adapter that a name such as ``run/step-20`` stands for, or None.

    ``commits`` are those with this name. Of one run, the newest attempt's counts, as in
    ``newest_by_step``: an attempt that was superseded may have written later. Of several runs that
    had the same name one after another, the one that was created last counts.
    """
    by_run: dict[str, Commit] = {}  # not all at once: each has a manifest
    for commit in commits:
        known = by_run.get(commit.marker.uid)
        if known is None or _attempt(known) <= _attempt(commit):
            by_run[commit.marker.uid] = commit
    return max(
        by_run.values(),
        key=lambda commit: (commit.manifest.created, commit.marker.uid),
        default=None,
    )


def is_committed(marker: CommitMarker, manifest: Manifest, size_of: SizeOf) -> bool:
    """Return whether ``manifest`` is of the place of ``marker`` and all its files are there."""
    kind = "adapter" if marker.step is None else "checkpoint"
    place = (marker.attempt, marker.step)
    if marker.step is not None and (manifest.attempt, manifest.step) != place:
        return False
    return manifest.commits(kind, marker.uid, lambda path: size_of(marker.prefix + path))


def _attempt(commit: Commit) -> int:
    return commit.marker.attempt or 0
