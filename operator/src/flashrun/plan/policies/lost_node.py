"""Lost node: pods that were to end and whose node no longer reports are fenced and removed."""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision, Delete

NODE_LOST: Final = timedelta(minutes=10)


def give_up_lost_pods(context: RunContext, decision: Decision) -> Decision:
    """Add the forced deletion of pods whose node does not report that they ended.

    Only a leader writes to storage, so that only its attempt has to be superseded. While its
    heartbeat is fresh, the node has lost the API server alone, and the pod may end in time.
    """
    lost = [
        pod
        for pod in context.pods
        if pod.active
        and pod.deleted is not None
        and context.now - max(pod.deleted, context.last_sign_of_life(pod)) >= NODE_LOST
    ]
    lost_names = {pod.name for pod in lost}
    claims = context.observed.storage.claims
    attempts = [claim.attempt for claim in claims if claim.pod in lost_names]
    forced = tuple(Delete("Pod", pod.name, force=True) for pod in lost)
    return replace(
        decision,
        supersede=max(attempts, default=decision.supersede),
        delete=(*decision.delete, *forced),
    )
