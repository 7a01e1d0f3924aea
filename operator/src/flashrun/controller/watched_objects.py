"""What is kept of a FlashRun, Job or pod that a list or a watch has shown.

Pure functions. An object becomes a short text with what the operator reads of it; a pass decodes
the text when it needs the object. What is too large to be kept has no text, and is read from the
API server when a pass needs it, within the bounds of ``bounded_answers``.
"""

from typing import Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from flashrun.api import names
from flashrun.api.pod import ENDED_PHASES
from flashrun.api.reasons import TERMINAL
from flashrun.api.record_reader import has_more_values
from flashrun.cluster_errors import ClusterError
from flashrun.cluster_requests import RESOURCES, Object, Request
from flashrun.controller.bounded_answers import (
    METADATA_VALUES,
    BoundedAnswers,
    FullMetadata,
    Identity,
    RunObject,
)
from flashrun.plan.kubernetes_status import find_condition

KEPT_BYTES: Final = 64 * 1024
"""Longest text that is kept of one object."""
WATCHED_KINDS: Final = (names.KIND, "Job", "Pod")
"""Kinds that are watched in each namespace."""
UNREADABLE: Final = (RecursionError, msgspec.MsgspecError)
"""What decoding raises for what somebody wrote."""

_ANSWERS: Final = BoundedAnswers()


class WatchedObject(NamedTuple):
    """One object as a list or a watch showed it."""

    name: str
    uid: str
    version: int
    """Its resourceVersion: of two states of one kind, the later one has the greater number."""
    run_uid: str
    """The run that it is, or that it belongs to by its label."""
    run_name: str
    settled: bool
    """Whether it is as it stays: nothing has to be done for it."""
    generation: int | None
    """Which spec of the object it is; a status leaves it as it is."""
    text: bytes | None
    """What is read of it, as JSON; None: it is too large to be kept."""
    phase: str = ""
    """Of a run: its phase as it was written; empty until then."""
    since: float = 0.0
    """When the cache had it first."""


class _Head(Struct):
    """The part that every object has."""

    metadata: Identity


class _RunPhase(Struct, rename="camel"):
    """What says whether a run has ended."""

    phase: str = ""
    observed_generation: int | None = None


def watched_object(kind: str, raw: Raw) -> WatchedObject:
    """Return what is kept of an object; raises one of ``UNREADABLE``."""
    head = msgspec.json.decode(raw, type=_Head).metadata
    labels = head.labels
    shown = WatchedObject(
        name=head.name,
        uid=head.uid,
        version=version_number(head.resource_version),
        run_uid=(labels.run_uid if labels else None) or "",
        run_name=(labels.run if labels else None) or "",
        settled=False,
        generation=head.generation,
        text=None,
    )
    if kind == names.KIND:
        shown = shown._replace(run_uid=head.uid, run_name=head.name)
        return _with_run(shown, head, msgspec.json.decode(raw, type=RunObject))
    return _with_child(kind, shown, raw)


def read_text(kind: str, text: bytes) -> Object:
    """Return the object in a text, as the API server's own answer would be read.

    Raises:
        TooLarge: it is larger than an object of this kind may be.
    """
    identity = {"apiVersion": RESOURCES[kind].api_version, "kind": kind}
    if kind != names.KIND:  # it was within bounds when it was kept
        return {**identity, **msgspec.json.decode(text)}
    return {**identity, **_ANSWERS.read(_request(kind), text)}


def version_number(version: str | None) -> int:
    """Return a resourceVersion as a number; -1 where it is none, which is before all others."""
    return int(version) if version and version.isascii() and version.isdigit() else -1


def _with_run(shown: WatchedObject, head: Identity, run: RunObject) -> WatchedObject:
    """Return ``shown`` with the text of a run that goes on; no pass needs one that is settled."""
    status = msgspec.json.decode(run.status, type=_RunPhase | None) or _RunPhase()
    shown = shown._replace(phase=status.phase)
    ended = status.phase in TERMINAL and status.observed_generation == head.generation
    if ended and head.deletion_timestamp is None:
        return shown._replace(settled=True)
    without_spec = bytes(run.spec) == b"null"  # it was nested too deeply
    if without_spec or has_more_values(run.metadata, METADATA_VALUES):
        return shown
    metadata = msgspec.json.decode(run.metadata, type=FullMetadata)
    run.metadata = Raw(msgspec.json.encode(metadata))
    return shown._replace(text=_kept(msgspec.json.encode(run)))


def _with_child(kind: str, shown: WatchedObject, raw: Raw) -> WatchedObject:
    try:
        child = _ANSWERS.read(_request(kind), memoryview(raw))
    except ClusterError:
        return shown
    text = _kept(msgspec.json.encode(child))
    return shown._replace(settled=_is_settled(kind, child), text=text)


def _is_settled(kind: str, child: Object) -> bool:
    if kind == "Pod":
        return child["status"].get("phase") in ENDED_PHASES
    ended = find_condition(child, "Complete") or find_condition(child, "Failed")
    return ended is not None and "ttlSecondsAfterFinished" in child["spec"]


def _kept(text: bytes) -> bytes | None:
    return text if len(text) <= KEPT_BYTES else None


def _request(kind: str) -> Request:
    return Request("get", "GET", RESOURCES[kind], None)
