"""Active Job: report what its pods do, and create again what they need and somebody deleted."""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from flashrun.api import names
from flashrun.api.reasons import Activity, AnyReason, KubernetesReason, Phase, Reason, reason_from
from flashrun.api.records import ResolvedRun
from flashrun.api.resource import FailureStatus, PendingStatus
from flashrun.api.times import format_time, parse_time
from flashrun.plan import back_off, failures, objects, pins, run_status, wall_clock
from flashrun.plan.decisions import fail_run
from flashrun.plan.job_start import (
    access_grant,
    missing_secrets,
    spec_repair,
)
from flashrun.plan.kubernetes_status import find_condition
from flashrun.plan.kueue_workloads import (
    other_manager,
    resume_patches,
    stopping_sentence,
    waiting_sentence,
)
from flashrun.plan.notices import (
    autoscaler_sentence,
    newest_warning,
    pod_activity,
    refused_pod,
)
from flashrun.plan.pods import Pod, is_held_by_other_containers
from flashrun.plan.policies.lost_node import NODE_LOST
from flashrun.plan.policies.stalled_attempt import end_stalled_attempt
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision, Delete, Object, Patch

IMAGE_PATIENCE: Final = timedelta(minutes=10)
SHORTEST_LOOK_SECONDS: Final = 4.0
LONGEST_LOOK_SECONDS: Final = 300.0
"""Time between two passes over a run that waits for its pods."""


def follow_job(context: RunContext) -> Decision:
    """Report what the pods of an active Job do, and create again what is missing."""
    job, resolved = context.job, context.pinned
    assert job is not None  # the policy job_launch has answered
    assert resolved is not None  # a run with a Job has pins
    missing, wrong = _missing_objects(context, resolved)
    repair = Decision(
        status=context.status,
        secrets=missing_secrets(context),
        access=access_grant(context, resolved),
        apply=missing,
        patch=(*resume_patches(job, context.workload_of(job)), *_limits_patch(context, job)),
    )
    without_image = next(
        (pod for pod in context.current_pods if _image_overdue(context, pod)), None
    )
    if without_image is not None:
        failure = FailureStatus(
            reason=Reason.IMAGE_PULL_FAILED,
            message=f"The trainer image cannot be pulled: {without_image.waiting_message}",
            hint="Ask the platform's administrator to check trainer.image and trainer.pullSecrets.",
        )
        return fail_run(context, failure, delete_jobs=True)
    phase, reason, message = _describe_pods(context, job, resolved.scale.nodes)
    waits = phase is not Phase.RUNNING and reason not in _PREPARING.values()
    pending = PendingStatus(reason=reason, message=message) if waits else None
    status = run_status.with_phase(
        context.status.replace(pending=pending),
        context.run,
        context.now,
        phase=phase,
        reason=reason,
        message=message,
    )
    stalled = end_stalled_attempt(context, resolved.scale.nodes)
    return replace(
        repair,
        status=status,
        delete=(*wrong, *stalled),
        requeue_seconds=None if phase is Phase.RUNNING else _seconds_to_next_look(context, job),
    )


def _missing_objects(
    context: RunContext, resolved: ResolvedRun
) -> tuple[tuple[Object, ...], tuple[Delete, ...]]:
    """Return what the pods of the Job need and is missing, and what has to be deleted before.

    The Job names the ConfigMap of the digest that is pinned. Another version of the operator may
    resolve the same run to another text: the Job goes on while its ConfigMap is as it was, and is
    replaced when it is not.
    """
    run, pinned, there = context.run, context.run.status.resolved, context.observed.config_map
    assert pinned is not None
    missing: tuple[Object, ...] = ()
    wrong: tuple[Delete, ...] = ()
    if there is None or not objects.holds_spec(there, run, pinned.spec_digest):
        if pins.digest_of(pins.spec_text(resolved)) == pinned.spec_digest:
            missing, wrong = spec_repair(context, resolved)
        else:
            wrong = (Delete("Job", names.job_name(run.name, run.uid, pinned.job)),)
    if resolved.scale.nodes > 1 and not context.observed.has_peers:
        missing = (*missing, objects.peers_service(run, pinned.job))
    return missing, wrong


def _limits_patch(context: RunContext, job: Object) -> tuple[Patch, ...]:
    """Return the patch that sets back limits which somebody has changed.

    The deadline moves on while pods wait.
    """
    pinned = context.run.status.resolved
    assert pinned is not None
    limits = pins.job_limits(context.run, context.platform)
    wanted = {"parallelism": pinned.nodes, **objects.limit_fields(pinned.nodes, limits)}
    wanted["activeDeadlineSeconds"] = wall_clock.deadline_seconds(context, job, limits)
    spec = {"parallelism": 1, **job["spec"]}
    changed = {key: value for key, value in wanted.items() if spec.get(key) != value}
    return (Patch("Job", job["metadata"]["name"], {"spec": changed}),) if changed else ()


def _describe_pods(context: RunContext, job: Object, nodes: int) -> tuple[Phase, AnyReason, str]:
    """Return phase, reason and one sentence about the pods of ``job``."""
    pods = context.current_pods
    active = [pod for pod in pods if pod.active]
    waiting = Phase.STARTING if len(active) == len(context.pods) else Phase.RETRYING
    if manager := other_manager(job):
        message = (
            f"The Job was handed to {manager}, which may run it in another cluster: there it has "
            "neither its Secrets nor its spec."
        )
        return Phase.PENDING, Reason.MANAGED_ELSEWHERE, message
    if job["spec"].get("suspend"):
        queued = context.workload_of(job)
        if active:
            return Phase.RUNNING, Reason.SUSPENDING, stopping_sentence(queued)
        return Phase.PENDING, Reason.QUEUED, waiting_sentence(job, queued)
    if find_condition(job, "Complete") is not None:
        return Phase.RUNNING, Reason.FINISHING, Reason.FINISHING.sentence
    notices = context.observed.notices
    if refusal := refused_pod(notices.get(job["metadata"].get("uid", ""), ()), context.pods):
        message = f"{_last_ending(context)}The Job controller cannot create a pod: {refusal}"
        return Phase.PENDING, Reason.CLUSTER_REFUSES, message
    if not active or any(not pod.active and pod.exit_code != 0 for pod in pods):
        return waiting, Reason.POD_PENDING, _between_attempts(context, active)
    if stopping := next((pod for pod in active if pod.deleted is not None), None):
        phase = waiting if stopping.started is None else Phase.RUNNING
        return phase, Reason.INTERRUPTED, _stopping_sentence(stopping)
    if unschedulable := [pod for pod in active if pod.unschedulable]:
        share = f"{len(unschedulable)} of {nodes} pods: " if nodes > 1 else ""
        held = unschedulable[0]
        message = f"No node fits: {share}{held.unschedulable}"
        if said := autoscaler_sentence(notices.get(held.uid, ())):
            message = f"{message} {said}"
        return waiting, Reason.UNSCHEDULABLE, message
    if blocked := next((pod for pod in active if pod.waiting_reason), None):
        detail = blocked.waiting_message or blocked.waiting_reason
        reason = reason_from(blocked.waiting_reason)
        return waiting, reason, f"The pod cannot start: {detail}"
    for pod in active:
        works = pod_activity(pod, notices) is not None
        warning = None if works else newest_warning(notices.get(pod.uid, ()))
        if warning is not None and pod.started is None:
            reason = reason_from(warning.reason) if warning.reason else Reason.POD_PENDING
            return waiting, reason, f"The pod cannot start: {warning.message}"
    if preparing_pod := next((pod for pod in active if pod.started is None), None):
        activity = pod_activity(preparing_pod, notices) or Activity.STARTING
        preparing = _PREPARING.get(activity, Reason.STARTING)
        if preparing is Reason.STARTING and preparing_pod.foreign_start:
            return waiting, preparing, f"{preparing.sentence} {preparing_pod.foreign_start}"
        return waiting, preparing, preparing.sentence
    if len(pods) < nodes:
        share = f"{len(pods)} of {nodes} pods"
        return waiting, Reason.POD_PENDING, f"The Job controller has created {share}."
    heartbeat = context.observed.storage.heartbeat
    if heartbeat is not None and heartbeat.warning and heartbeat.pod == pods[0].name:
        return Phase.RUNNING, Reason.TRAINING_WARNING, heartbeat.warning
    return Phase.RUNNING, Reason.TRAINING, Reason.TRAINING.sentence


def _stopping_sentence(pod: Pod) -> str:
    """Return a sentence about a pod that somebody has deleted and that has not ended."""
    why = f" ({pod.disrupted})" if pod.disrupted else ""
    minutes = int(NODE_LOST.total_seconds() / 60)
    return (
        f"The pod was asked to stop{why}; another one goes on when it has ended, or when its node "
        f"has not answered for {minutes} minutes."
    )


def _between_attempts(context: RunContext, active: list[Pod]) -> str:
    """Return a sentence about how the last attempt ended and what the next one waits for."""
    last = _last_ending(context)
    if active:
        return f"{last}Its other pods have not ended yet."
    if any(is_held_by_other_containers(pod) for pod in context.current_pods):
        return f"{last}Containers that other programs added to its pod have not ended yet."
    if (moment := back_off.next_try(context)) is not None:
        return f"{last}The Job controller creates the next pod at {format_time(moment)}."
    pod = "the next pod" if last else "a pod"
    return f"{last}The Job controller has not created {pod} yet."


def _last_ending(context: RunContext) -> str:
    """Return a sentence about how the last attempt ended, and a space; empty for the first one."""
    ended = [
        attempt.first_failure for attempt in context.attempts if not attempt.first_failure.active
    ]
    if not ended:
        return ""
    said = failures.words_of_others(ended[-1])
    why = f" ({said.removesuffix('.')})" if said else ""
    return f"The last attempt ended: {failures.pod_reason(ended[-1])}{why}. "


def _seconds_to_next_look(context: RunContext, job: Object) -> float:
    """Return when to read Events again, which are not watched: the less often the longer it waits.

    Changes of the Job and of its pods come at once.
    """
    times = [pod.ended or pod.created for pod in context.pods]
    if created := job["metadata"].get("creationTimestamp"):
        times.append(parse_time(created))
    waited = (context.now - max(times)).total_seconds() if times else 0.0
    return min(LONGEST_LOOK_SECONDS, max(SHORTEST_LOOK_SECONDS, waited))


_PREPARING: Final = {
    Activity.STARTING: Reason.STARTING,
    Activity.PULLING_IMAGE: Reason.PULLING_IMAGE,
    Activity.DOWNLOADING: Reason.DOWNLOADING,
    Activity.INSTALLING: Reason.INSTALLING,
}
"""What a pod does before its trainer starts."""


def _image_overdue(context: RunContext, pod: Pod) -> bool:
    """Return whether to stop waiting for a pod's image."""
    if not pod.active or not pod.image_trouble:
        return False
    return (
        pod.waiting_reason == KubernetesReason.INVALID_IMAGE_NAME
        or context.observed.pull_failed_seconds.get(pod.uid, 0.0) > IMAGE_PATIENCE.total_seconds()
    )
