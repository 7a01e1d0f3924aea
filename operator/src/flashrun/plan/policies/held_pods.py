"""Held pod: its trainer has ended, and containers of other programs keep it and its GPUs."""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from flashrun.plan.pods import is_held_by_other_containers
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision, Delete

GRACE: Final = timedelta(seconds=30)
"""How long the other containers may take to end: Kubernetes' own default."""


def end_held_pods(context: RunContext, decision: Decision) -> Decision:
    """Add the deletion of pods whose trainer has ended; the kubelet then stops the others.

    The Job counts such a pod by the exit code of its trainer. The grace period of the pod is the
    time that a trainer may need to save: nothing else needs it. Also a pod that is being deleted
    already, because its run was cancelled or preempted, ends sooner.
    """
    soon = context.now + GRACE
    held = (
        Delete("Pod", pod.name, grace_seconds=int(GRACE.total_seconds()))
        for pod in context.pods
        if is_held_by_other_containers(pod) and (pod.deleted is None or pod.deleted > soon)
    )
    return replace(decision, delete=(*decision.delete, *held))
