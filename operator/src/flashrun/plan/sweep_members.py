"""The other runs of a sweep: which of them run, which wait, and how good they were at each rung.

Every decision here settles although passes over several runs are made at a time: runs that wait
have an order, and each run finds the same one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from flashrun.api import evaluation
from flashrun.api.reasons import TERMINAL, Phase, Reason
from flashrun.api.sweep import StopWorse

_ENDED: Final = frozenset(map(str, TERMINAL))


class Standing(IntEnum):
    """What a run does in its sweep; runs that wait begin in the order of these numbers."""

    WAITS = 1
    """It waits for its turn, or has not been looked at yet."""
    WAITS_ELSEWHERE = 2
    """It waits for something else, such as a Secret, and lets others go first."""
    RUNS = 3
    """It holds one of the places."""
    PAUSED = 4
    """It has begun, and is suspended: it holds no place."""
    ENDED = 5


@dataclass(frozen=True)
class SweepMember:
    """One run of a sweep."""

    uid: str
    name: str
    created: str
    """Time of creation as the API server writes it."""
    standing: Standing
    metric: str = ""
    scores: Mapping[int, float] = field(default_factory=dict)
    """Rung → score."""

    @property
    def turn(self) -> tuple[Standing, str, str]:
        """Where the run stands among those that wait."""
        return (self.standing, self.created, self.name)


def read_member(manifest: Mapping[str, Any]) -> SweepMember:
    """Return a run of a sweep from its object, of which little may be kept."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    rungs = (status.get("sweep") or {}).get("rungs") or ()
    return SweepMember(
        uid=metadata["uid"],
        name=metadata["name"],
        created=metadata.get("creationTimestamp") or "",
        standing=_standing(status, deleted="deletionTimestamp" in metadata),
        metric=(status.get("evaluation") or {}).get("metric", ""),
        scores={
            rung["rung"]: score for rung in rungs if (score := _number(rung["score"])) is not None
        },
    )


def may_begin(
    uid: str, members: Iterable[SweepMember], limit: int, launched: Iterable[str] = ()
) -> bool:
    """Return whether the run ``uid`` may get its first Job, of at most ``limit`` that run at once.

    ``launched`` are the uids of runs that the operator has just started, whatever is known of them.
    """
    everyone = {member.uid: member for member in members}
    running = {own for own, member in everyone.items() if member.standing is Standing.RUNS}
    running = (running | {*launched}) - {uid}
    waiting = [
        member
        for member in everyone.values()
        if member.standing <= Standing.WAITS_ELSEWHERE and member.uid not in running
    ]
    in_turn = [member.uid for member in sorted(waiting, key=lambda member: member.turn)]
    place = in_turn.index(uid) if uid in in_turn else len(in_turn)
    return len(running) + place < limit


def better_runs(
    uid: str, metric: str, scores: Mapping[int, float], members: Iterable[SweepMember]
) -> tuple[int, int, int] | None:
    """Return the run's highest rung, how many runs are better there, and how many reached it.

    Only runs that are judged by the same metric count; None: the run has reached no rung.
    """
    if not scores:
        return None
    rung = max(scores)
    others = [
        member.scores[rung]
        for member in members
        if member.uid != uid and member.metric == metric and rung in member.scores
    ]
    better = sum(evaluation.is_better(metric, other, scores[rung]) for other in others)
    return rung, better, len(others) + 1


def goes_on(stop: StopWorse, better: int, reached: int) -> bool:
    """Return whether a run goes on when ``better`` of ``reached`` runs are better at its rung.

    Runs with equal scores go on, or end, together.
    """
    kept = -(-reached // stop.factor)
    return better < kept


def _standing(status: Mapping[str, Any], *, deleted: bool) -> Standing:
    phase = status.get("phase", "")
    begun = bool((status.get("resolved") or {}).get("environmentDigest"))
    if phase in _ENDED or (deleted and not begun):
        return Standing.ENDED
    if begun:
        return Standing.PAUSED if phase == Phase.SUSPENDED else Standing.RUNS
    if phase == Phase.SUSPENDED:
        return Standing.PAUSED
    waits_for = (status.get("pending") or {}).get("reason", "")
    own_turn = waits_for in ("", Reason.SWEEP_LIMIT, Reason.UNSEEN, Reason.CHECKING)
    return Standing.WAITS if own_turn else Standing.WAITS_ELSEWHERE


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
