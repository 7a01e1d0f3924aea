"""The adapter that ``train.init_from_adapter`` names, looked up as the operator will."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from flashrun.api import names
from flashrun.api.config import RunConfig
from flashrun.api.names import Ref
from flashrun.api.records import Manifest
from flashrun.cli.cluster.connection import Session
from flashrun.plan.resolve import ConfigIssue, adapter_mismatch

if TYPE_CHECKING:
    from flashrun.store import Entry, Store

_KEY = "train.init_from_adapter"
_SHOWN = 5


class Start(NamedTuple):
    """The adapter that a run would start from, or why it cannot."""

    manifest: Manifest | None = None
    problem: ConfigIssue | None = None


async def look(session: Session, config: RunConfig) -> Start:
    """Find the adapter and check that it fits; nothing when the config names none.

    Raises:
        StoreError, Failure: storage cannot be read from here.
    """
    if config.train.init_from_adapter is None:
        return Start()
    ref = names.parse_ref(config.train.init_from_adapter)
    home = names.run_name_prefix(session.namespace, ref.run)
    entries = await session.stored(lambda store: {entry.key: entry for entry in store.list(home)})
    manifest = await session.stored(lambda store: newest(store, session.namespace, ref, entries))
    if manifest is None:
        return Start(problem=ConfigIssue(_KEY, await _absent(session, ref, entries)))
    return Start(manifest, adapter_mismatch(config, manifest))


def newest(
    store: "Store", namespace: str, ref: Ref, entries: Mapping[str, "Entry"]
) -> Manifest | None:
    """Return the newest committed adapter of this name, also of a run whose object is gone."""
    found = (
        manifest
        for marker in _markers(namespace, ref.run, entries)
        if marker.step == ref.step and (manifest := _committed(store, marker, entries)) is not None
    )
    return max(found, key=lambda manifest: manifest.created, default=None)


class _Marker(NamedTuple):
    """Where a manifest lies, and what it commits by lying there."""

    key: str
    uid: str
    attempt: int | None = None
    step: int | None = None


def _markers(namespace: str, run: str, entries: Iterable[str]) -> Iterator[_Marker]:
    """Yield the markers of all checkpoints and adapters that were committed as ``run``."""
    home = names.run_name_prefix(namespace, run)
    for key in entries:
        uid = key.removeprefix(home).partition("/")[0]
        prefix = names.run_prefix(namespace, run, uid)
        place = names.parse_step_key(prefix, key)
        if place is not None and place.path == names.MANIFEST:
            yield _Marker(key, uid, place.attempt, place.step)
        elif key == names.adapter_prefix(prefix) + names.MANIFEST:
            yield _Marker(key, uid)


def _committed(store: "Store", marker: _Marker, entries: Mapping[str, "Entry"]) -> Manifest | None:
    """Return the manifest if it is of this run and place, and all that it lists is there."""
    from flashrun.store_errors import Corrupt, KeyNotFound

    folder = marker.key.removesuffix(names.MANIFEST)

    def size(path: str) -> int | None:
        entry = entries.get(folder + path)
        return entry and entry.size

    try:
        manifest = store.get_json(marker.key, Manifest)
    except (Corrupt, KeyNotFound):
        return None
    kind = "adapter" if marker.step is None else "checkpoint"
    here = marker.step is None or (manifest.attempt, manifest.step) == (marker.attempt, marker.step)
    return manifest if here and manifest.commits(kind, marker.uid, size) else None


async def _absent(session: Session, ref: Ref, entries: Mapping[str, "Entry"]) -> str:
    """Say why nothing is found as ``ref``, and what could be used instead."""
    namespace = session.namespace
    steps = {m.step for m in _markers(namespace, ref.run, entries) if m.step is not None}
    listed = ", ".join(names.checkpoint_ref(ref.run, step) for step in sorted(steps)[-_SHOWN:])
    instead = f"use one of {listed}" if listed else "flash checkpoints shows when it has saved one"
    run = await session.cluster.find(names.KIND, namespace, ref.run)
    if run is None and not entries:
        return (
            f"there is no run {ref.run} in namespace {namespace}, and adapters of another "
            "namespace cannot be used: flash runs lists those of this one"
        )
    phase = (run or {}).get("status", {}).get("phase") or ("Pending" if run else "deleted")
    if ref.step is None:
        return f"run {ref.run} has no final adapter (it is {phase}): {instead}"
    return f"{ref} is not committed (the run is {phase}): {instead}"
