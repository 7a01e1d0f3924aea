"""``status.attempts``: what each attempt of a run did, and how it ended."""

from datetime import datetime

from flashrun.api.reasons import NO_REASON, TERMINAL, Phase, Reason
from flashrun.api.resource import ATTEMPT_TEXT_LIMIT, AttemptStatus, FlashRunStatus
from flashrun.api.times import whole_seconds
from flashrun.plan import failures
from flashrun.plan.pods import Attempt, Pod, group_attempts
from flashrun.plan.types import Observed, StorageView


def attempt_statuses(
    before: FlashRunStatus, pods: tuple[Pod, ...], observed: Observed, now: datetime
) -> tuple[AttemptStatus, ...]:
    """Return one entry per attempt, in the order in which their pods were created.

    An attempt whose pods were deleted keeps the entry of the last pass; one that was active then
    counts as ended now. Nobody has lost the pods of a run that is cancelled or suspended, if they
    are gone before their end was seen.
    """
    pinned = before.resolved
    seen_end = whole_seconds(now) if before.phase not in TERMINAL else None
    stopped = before.phase is Phase.CANCELLING or any(
        job["spec"].get("suspend") for job in observed.jobs
    )
    gone = Reason.INTERRUPTED if stopped else Reason.POD_LOST
    entries = {attempt.pod: attempt for attempt in before.attempts}
    for attempt in group_attempts(pods):
        leader = attempt.leader
        if leader.index == 0:
            entry = _attempt_status(entries.get(leader.name), attempt, observed.storage, seen_end)
            if pinned is not None and leader.job == pinned.job:
                entry = entry.replace(gpus=pinned.gpus, pool=pinned.pool)
            entries[leader.name] = entry
    for name in entries.keys() - {pod.name for pod in pods}:
        if entries[name].end is None and seen_end is not None:  # deleted between passes
            held = entries[name].held_from or entries[name].start
            end = seen_end if held is not None else None
            entries[name] = entries[name].replace(reason=gone, end=end)
    order = _creation_order([attempt.pod for attempt in before.attempts], pods)
    return tuple(entries[name] for name in order if name in entries)


def _creation_order(listed: list[str], pods: tuple[Pod, ...]) -> list[str]:
    """Return ``listed`` with the other pods at their places; pods that are gone stay at theirs.

    The starts of attempts have no such order: a pod that never started has none, and two pods may
    start within one second.
    """
    created = {pod.name: pod.created for pod in pods}
    order = list(listed)
    for pod in pods:
        if pod.name not in listed:
            later = (
                place
                for place, name in enumerate(order)
                if name in created and created[name] > pod.created
            )
            order.insert(next(later, len(order)), pod.name)
    return order


def _attempt_status(
    before: AttemptStatus | None,
    attempt: Attempt,
    storage: StorageView,
    seen_end: datetime | None,
) -> AttemptStatus:
    """Return the entry of an attempt; one whose end nobody has dated ended at ``seen_end``.

    The kubelet of an evicted pod dates no end, and that of a lost node cannot.
    """
    pod, cause = attempt.leader, attempt.first_failure
    before = before or AttemptStatus(number=0, pod=pod.name)
    ended = not pod.active
    number = _claimed_number(pod, storage) or before.number
    from_step, to_step = before.from_step, _reached_step(pod, storage)
    if from_step is None and number:  # once: checkpoints may be hidden from a later pass
        from_step = _resumed_step(storage, number)
    held = [moment for moment in (before.held_from, pod.accepted, pod.started) if moment]
    undated_end = before.end or (seen_end if held else None)
    failed_first = f"Pod {cause.name} failed first." if cause is not pod else ""
    said = " ".join(filter(None, (failed_first, failures.words_of_others(cause))))
    return AttemptStatus(
        number=number,
        pod=pod.name,
        node=pod.node,
        gpus=before.gpus,
        pool=before.pool,
        held_from=min(held) if held else None,
        start=pod.started or before.start,
        end=pod.ended or undated_end if ended else None,
        reason=failures.pod_reason(cause) if ended else NO_REASON,
        exit_code=cause.exit_code if ended else None,
        message=_cut(said) if ended else "",
        from_step=from_step,
        to_step=to_step if ended and to_step is not None else before.to_step,
    )


def _cut(text: str) -> str:
    return text if len(text) <= ATTEMPT_TEXT_LIMIT else f"{text[: ATTEMPT_TEXT_LIMIT - 1]}…"


def _claimed_number(pod: Pod, storage: StorageView) -> int:
    """Return the number of the attempt that ``pod`` has claimed, or 0."""
    return next((claim.attempt for claim in storage.claims if claim.pod == pod.name), 0)


def _reached_step(pod: Pod, storage: StorageView) -> int | None:
    """Return the step at which ``pod`` ended, or its newest one, as far as it is known."""
    if pod.termination is not None and pod.termination.step is not None:
        return pod.termination.step
    heartbeat = storage.heartbeat
    if heartbeat is None or heartbeat.progress is None or heartbeat.pod != pod.name:
        return None
    return heartbeat.progress.step


def _resumed_step(storage: StorageView, number: int) -> int:
    """Return the newest step that attempts before ``number`` committed."""
    earlier = (saved.step for saved in storage.checkpoints if saved.attempt < number)
    return max(earlier, default=0)
