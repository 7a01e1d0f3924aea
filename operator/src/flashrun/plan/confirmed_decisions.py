"""Which decisions need a state that was read from the API server itself.

A watch shows Jobs and pods a moment later than they change, each kind on its own. What follows from
such a state is written only where a wrong write is impossible: the status carries the version that
it follows from, the first Job has a name of its own, and other objects are written as they have to
be.
"""

from flashrun.api.reasons import TERMINAL
from flashrun.api.resource import FlashRun
from flashrun.plan.types import Decision, Patch


def needs_confirmation(run: FlashRun, decision: Decision) -> bool:
    """Return whether ``decision`` ends something, or begins it again.

    A deadline does neither: of pods that began, a watch may lack the newest, never the first.
    """
    ended = run.status.phase in TERMINAL
    starts_job = any(manifest["kind"] == "Job" for manifest in decision.apply)
    return bool(
        decision.delete
        or decision.supersede is not None
        or (not ended and not all(map(_is_deadline, decision.patch)))
        or (decision.status.phase in TERMINAL and not ended)
        or (starts_job and run.status.resolved is not None)
    )


def _is_deadline(patch: Patch) -> bool:
    return (
        patch.kind == "Job"
        and patch.body.keys() == {"spec"}
        and patch.body["spec"].keys() == {"activeDeadlineSeconds"}
    )
