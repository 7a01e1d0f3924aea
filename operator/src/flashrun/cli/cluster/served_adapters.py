"""The adapters of runs as a server lists them, and the servers of a namespace."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from flashrun.api import names
from flashrun.api.adapter_use import CONFIG_FILE
from flashrun.api.names import Ref
from flashrun.api.records import Manifest, ResolvedModel, ResolvedRun
from flashrun.api.served import ADAPTERS_LIMIT, ServedAdapter, ServedList, adapter_files
from flashrun.cli.cluster.adapters import find_newest
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.output.failure import NotFoundFailure, UsageFailure
from flashrun.plan.commits import Commit, find_markers_by_name

if TYPE_CHECKING:
    from flashrun.store import Store
    from flashrun.store_listing import Entry


class StoredAdapter(NamedTuple):
    """A committed adapter, and the run that has trained it."""

    ref: Ref
    commit: Commit
    run: ResolvedRun


class PinnedAdapter(NamedTuple):
    """An adapter as a server lists it, and the run that has trained it."""

    adapter: ServedAdapter
    run: ResolvedRun


class FoundAdapters(NamedTuple):
    """What a server serves, and the spec of the first run, whose base model all have."""

    served: ServedList
    run: ResolvedRun


async def find_served(session: ClusterSession, refs: Sequence[Ref]) -> FoundAdapters:
    """Return the list of a server: a run stands for its final adapter and each checkpoint.

    Raises:
        NotFoundFailure: nothing is saved under one of the references.
        UsageFailure: the adapters have several base models, or are too many for one server.
    """
    adapters: dict[str, ServedAdapter] = {}
    runs: list[ResolvedRun] = []
    for ref in refs:
        for stored in await session.with_store(
            partial(_stored_adapters, namespace=session.namespace, ref=ref)
        ):
            adapters[stored.adapter.id] = stored.adapter
            runs.append(stored.run)
    _check_one_base([run.model for run in runs], runs)
    if len(adapters) > ADAPTERS_LIMIT:
        raise UsageFailure(
            f"{len(adapters)} adapters are more than one server lists ({ADAPTERS_LIMIT})",
            "name checkpoints as RUN/step-N",
        )
    return FoundAdapters(ServedList(adapters=tuple(adapters.values())), runs[0])


def _stored_adapters(store: "Store", namespace: str, ref: Ref) -> list[PinnedAdapter]:
    """Return the adapters that one reference stands for, as a server lists them."""
    prefix = names.run_name_prefix(namespace, ref.run)
    entries = {entry.key: entry for entry in store.list(prefix)}
    found = []
    refs = [ref] if ref.step is not None else [*_refs_of(namespace, ref.run, entries)]
    for each in refs:
        stored = read_adapter(store, namespace, each, entries)
        if stored is not None:
            found.append(PinnedAdapter(_pinned(store, stored), stored.run))
    if not found:
        raise explain_missing(next(iter(refs), ref), namespace, entries)
    return found


def _refs_of(namespace: str, run: str, entries: dict[str, "Entry"]) -> Iterator[Ref]:
    """Yield the final adapter of a run, then its checkpoints in the order of their steps."""
    steps = {marker.step for marker in find_markers_by_name(namespace, run, entries)}
    if None in steps:
        yield Ref(run, None)
    for step in sorted(step for step in steps if step is not None):
        yield Ref(run, step)


def read_adapter(
    store: "Store", namespace: str, ref: Ref, entries: dict[str, "Entry"]
) -> StoredAdapter | None:
    """Return the newest committed adapter of this name, and the spec that it was trained by."""
    commit = find_newest(store, namespace, ref, entries)
    if commit is None or adapter_files(commit.manifest) is None:
        return None
    home = names.run_prefix(namespace, ref.run, commit.marker.uid)
    return StoredAdapter(ref, commit, store.get_json(names.spec_key(home), ResolvedRun))


def explain_missing(ref: Ref, namespace: str, keys: Iterable[str]) -> NotFoundFailure:
    """Return why there is no whole adapter of this name; ``keys`` are those of its run."""
    hint = f"flash checkpoints {ref.run} lists what the run saved"
    markers = find_markers_by_name(namespace, ref.run, keys)
    if all(marker.step != ref.step for marker in markers):
        return NotFoundFailure(f"no adapter is saved as {ref} in namespace {namespace}", hint)
    return NotFoundFailure(
        f"what is saved as {ref} in namespace {namespace} is not whole: {names.MANIFEST} cannot be "
        "read, or files that it lists are missing or have another size, or none of them is "
        f"{CONFIG_FILE}",
        hint,
    )


def _pinned(store: "Store", stored: StoredAdapter) -> ServedAdapter:
    key, manifest = stored.commit.marker.key, stored.commit.manifest
    content = store.get_bytes(key, limit=Manifest.max_bytes)
    return ServedAdapter(
        id=str(stored.ref),
        prefix=stored.commit.marker.prefix,
        manifest=hashlib.sha256(content).hexdigest(),
        rank=manifest.lora_rank or stored.run.train.lora_rank,
    )


def _check_one_base(models: Sequence[ResolvedModel], runs: Sequence[ResolvedRun]) -> None:
    for model, run in zip(models, runs, strict=True):
        if model != models[0]:
            raise UsageFailure(
                f"one server has one base model: {runs[0].run.name} was trained on "
                f"{models[0].id} at {models[0].revision}, {run.run.name} on {model.id} at "
                f"{model.revision}",
                "serve them apart: one flash serve for each base model",
            )


class AdapterService(NamedTuple):
    """A server of the namespace, and what it serves."""

    name: str
    served: ServedList
    run: ResolvedRun


async def find_services(session: ClusterSession) -> list[AdapterService]:
    """Return the servers of the namespace, as their ConfigMaps describe them."""
    labels = {names.COMPONENT_LABEL: "server", names.MANAGED_BY_LABEL: names.CLI_FIELD_MANAGER}
    found = []
    for config_map in await session.cluster.list("ConfigMap", session.namespace, labels):
        data, name = config_map.get("data") or {}, config_map["metadata"]["name"]
        try:
            served = ServedList.model_validate_json(data[names.SERVED_KEY])
            run = ResolvedRun.model_validate_json(data[names.SPEC_KEY])
        except (KeyError, ValidationError):
            continue  # of another version, or changed by hand
        found.append(AdapterService(name, served, run))
    return found
