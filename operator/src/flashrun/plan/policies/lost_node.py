"""Lost node: pods that were to end and whose node no longer reports are fenced and removed."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from flashrun.api.pod import DISRUPTED_CONDITION
from flashrun.api.reasons import Reason
from flashrun.api.times import format_time
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision, Delete, Object

NODE_LOST: Final = timedelta(minutes=10)
"""How long a pod that is to end and its node may be silent before the pod counts as lost."""


def give_up_lost_pods(context: RunContext, decision: Decision) -> Decision:
    """Add the forced deletion of pods whose node does not report that they ended.

    Only a leader writes to storage, so that only its attempt has to be superseded. While its
    heartbeat is fresh, the node has lost the API server alone, and the pod may end in time.
    """
    lost = [
        pod
        for pod in context.pods
        if pod.holds_node and pod.deleted is not None and context.silence(pod) >= NODE_LOST
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


def lost_pod_status(pod: Object, now: datetime) -> Object:
    """Return the status that says in the kubelet's place that ``pod`` failed with its node.

    A Job waits for its pod until the pod has ended, and only the kubelet would report that. A
    disruption does not count against the Job's retries.
    """
    conditions = (pod.get("status") or {}).get("conditions") or []
    kept = [condition for condition in conditions if condition["type"] != DISRUPTED_CONDITION]
    lost = {
        "type": DISRUPTED_CONDITION,
        "status": "True",
        "reason": Reason.NODE_LOST,
        "message": "The node has shown no sign of life for too long.",
        "lastTransitionTime": format_time(now),
    }
    return {"phase": "Failed", "reason": Reason.NODE_LOST, "conditions": [*kept, lost]}
