"""Find the adapter that ``train.init_from_adapter`` names, in the same way as the operator."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from flashrun.api import names
from flashrun.api.config import RunConfig
from flashrun.api.names import Ref
from flashrun.api.records import Manifest
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.plan.resolve import ConfigIssue, adapter_mismatch
from flashrun.store_errors import Corrupt, KeyNotFound

if TYPE_CHECKING:
    from flashrun.store import Entry, Store
_KEY = "train.init_from_adapter"
_SUGGESTED_STEPS = 5


class WarmStart(NamedTuple):
    """The adapter that a run starts from, or why it cannot start; neither without an adapter."""

    manifest: Manifest | None = None
    problem: ConfigIssue | None = None


async def find_warm_start(session: ClusterSession, config: RunConfig) -> WarmStart:
    """Find the adapter that the config names, if it names one, and check that it fits.

    Raises:
        StoreError, Failure: storage cannot be read from here.
    """
    if config.train.init_from_adapter is None:
        return WarmStart()
    ref = names.parse_ref(config.train.init_from_adapter)
    prefix = names.run_name_prefix(session.namespace, ref.run)
    entries = await session.with_store(
        lambda store: {entry.key: entry for entry in store.list(prefix)}
    )
    manifest = await session.with_store(
        lambda store: newest_adapter(store, session.namespace, ref, entries)
    )
    if manifest is None:
        return WarmStart(problem=ConfigIssue(_KEY, await _explain_missing(session, ref, entries)))
    return WarmStart(manifest, adapter_mismatch(config, manifest))


def newest_adapter(
    store: "Store", namespace: str, ref: Ref, entries: Mapping[str, "Entry"]
) -> Manifest | None:
    """Return the newest committed adapter of this name, also of a run that was deleted."""
    committed = (
        manifest
        for marker in _markers(namespace, ref.run, entries)
        if marker.step == ref.step
        and (manifest := _read_committed(store, marker, entries)) is not None
    )
    return max(committed, key=lambda manifest: manifest.created, default=None)


class _Marker(NamedTuple):
    """The key of a manifest, and what it commits: an adapter, or the checkpoint of a step."""

    key: str
    uid: str
    attempt: int | None = None
    step: int | None = None


def _markers(namespace: str, run: str, entries: Iterable[str]) -> Iterator[_Marker]:
    """Yield the markers of all checkpoints and adapters of runs with the name ``run``."""
    name_prefix = names.run_name_prefix(namespace, run)
    for key in entries:
        uid = key.removeprefix(name_prefix).partition("/")[0]
        prefix = names.run_prefix(namespace, run, uid)
        step_key = names.parse_step_key(prefix, key)
        if step_key is not None and step_key.path == names.MANIFEST:
            yield _Marker(key, uid, step_key.attempt, step_key.step)
        elif key == names.adapter_prefix(prefix) + names.MANIFEST:
            yield _Marker(key, uid)


def _read_committed(
    store: "Store", marker: _Marker, entries: Mapping[str, "Entry"]
) -> Manifest | None:
    """Return the manifest if it belongs to this run and step, and every file it lists exists."""
    folder = marker.key.removesuffix(names.MANIFEST)

    def size(path: str) -> int | None:
        entry = entries.get(folder + path)
        return entry and entry.size

    try:
        manifest = store.get_json(marker.key, Manifest)
    except (Corrupt, KeyNotFound):
        return None
    kind = "adapter" if marker.step is None else "checkpoint"
    same = marker.step is None or (manifest.attempt, manifest.step) == (marker.attempt, marker.step)
    return manifest if same and manifest.commits(kind, marker.uid, size) else None


async def _explain_missing(
    session: ClusterSession, ref: Ref, entries: Mapping[str, "Entry"]
) -> str:
    """Return why there is no adapter ``ref``, and what can be used instead."""
    namespace = session.namespace
    steps = {m.step for m in _markers(namespace, ref.run, entries) if m.step is not None}
    listed = ", ".join(
        names.checkpoint_ref(ref.run, step) for step in sorted(steps)[-_SUGGESTED_STEPS:]
    )
    instead = f"use one of {listed}" if listed else f"see flash checkpoints {ref.run}"
    run = await session.cluster.find(names.KIND, namespace, ref.run)
    if run is None and not entries:
        return (
            f"there is no run {ref.run} in namespace {namespace}, and adapters of another "
            "namespace cannot be used: flash runs lists the runs of this one"
        )
    phase = (run or {}).get("status", {}).get("phase") or ("Pending" if run else "deleted")
    if ref.step is None:
        return f"run {ref.run} has no final adapter (it is {phase}): {instead}"
    return f"{ref} is not committed (the run is {phase}): {instead}"
