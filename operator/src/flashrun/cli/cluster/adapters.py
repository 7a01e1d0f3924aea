"""Find the adapter that ``train.init_from_adapter`` names, in the same way as the operator."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from flashrun.api import names
from flashrun.api.config import RunConfig
from flashrun.api.names import Ref
from flashrun.api.reasons import Phase
from flashrun.api.records import Manifest
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.plan.commits import Commit, committed, find_markers_by_name, newest_adapter
from flashrun.plan.resolve import ConfigIssue, adapter_mismatch
from flashrun.store_errors import Corrupt, KeyNotFound

if TYPE_CHECKING:
    from flashrun.store import Store
    from flashrun.store_listing import Entry
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
        lambda store: read_newest_adapter(store, session.namespace, ref, entries)
    )
    if manifest is None:
        return WarmStart(problem=ConfigIssue(_KEY, await _explain_missing(session, ref, entries)))
    return WarmStart(manifest, adapter_mismatch(config, manifest))


def read_newest_adapter(
    store: "Store", namespace: str, ref: Ref, entries: Mapping[str, "Entry"]
) -> Manifest | None:
    """Return the newest committed adapter of this name, also of a run that was deleted."""
    commit = find_newest(store, namespace, ref, entries)
    return commit and commit.manifest


def find_newest(
    store: "Store", namespace: str, ref: Ref, entries: Mapping[str, "Entry"]
) -> Commit | None:
    """Return the newest committed adapter of this name with its place in storage."""

    def size_of(key: str) -> int | None:
        entry = entries.get(key)
        return entry and entry.size

    markers = find_markers_by_name(namespace, ref.run, entries)
    candidates = (
        (marker, _read_manifest(store, marker.key)) for marker in markers if marker.step == ref.step
    )
    return newest_adapter(committed(candidates, size_of))


def _read_manifest(store: "Store", key: str) -> Manifest | None:
    try:
        return store.get_json(key, Manifest)
    except (Corrupt, KeyNotFound):
        return None


async def _explain_missing(
    session: ClusterSession, ref: Ref, entries: Mapping[str, "Entry"]
) -> str:
    """Return why there is no adapter ``ref``, and what can be used instead."""
    namespace = session.namespace
    markers = find_markers_by_name(namespace, ref.run, entries)
    steps = {marker.step for marker in markers if marker.step is not None}
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
    phase = (run or {}).get("status", {}).get("phase") or (Phase.PENDING if run else "deleted")
    if ref.step is None:
        return f"run {ref.run} has no final adapter (it is {phase}): {instead}"
    return f"{ref} is not committed (the run is {phase}): {instead}"
