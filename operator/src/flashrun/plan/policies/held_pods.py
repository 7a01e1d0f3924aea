"""Held pod: its trainer has ended, and containers of other programs keep it and its GPUs."""

from dataclasses import replace

from flashrun.plan.pods import is_held_by_other_containers
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision, Delete


def end_held_pods(context: RunContext, decision: Decision) -> Decision:
    """Add the deletion of pods whose trainer has ended; the kubelet then stops the others.

    The Job counts such a pod by the exit code of its trainer.
    """
    held = (
        Delete("Pod", pod.name)
        for pod in context.pods
        if is_held_by_other_containers(pod) and pod.deleted is None
    )
    return replace(decision, delete=(*decision.delete, *held))
