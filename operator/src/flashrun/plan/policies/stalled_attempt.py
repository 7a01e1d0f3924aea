"""Stalled attempt: pods that have shown no sign of life for too long are ended."""

from datetime import timedelta

from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Delete


def end_stalled_attempt(context: RunContext, nodes: int) -> tuple[Delete, ...]:
    """Return the deletion of all pods of an attempt that shows no sign of life.

    The leader writes the heartbeat, and only after all pods have met. Before all pods have started,
    the pods themselves limit how long they wait for each other.
    """
    pods = context.current_pods
    started = [pod.started for pod in pods if pod.started and pod.active and not pod.deleted]
    if len(started) < nodes:
        return ()
    silence = min(map(context.silence, pods))
    if silence < timedelta(seconds=context.platform.trainer.stall_seconds):
        return ()
    return tuple(Delete("Pod", pod.name) for pod in pods)
