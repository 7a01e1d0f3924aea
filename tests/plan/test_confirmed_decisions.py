"""What ends something, or begins it again, needs a state from the API server itself."""

import pytest

from flashrun.api.reasons import Phase
from flashrun.api.records import TrainerControl
from flashrun.api.resource import FlashRun, FlashRunStatus, ResolvedStatus
from flashrun.plan.confirmed_decisions import needs_confirmation
from flashrun.plan.types import Decision, Delete, Patch
from tests.controller.stage import flash_run

JOB = {"kind": "Job", "metadata": {"name": "job"}}
CONFIG_MAP = {"kind": "ConfigMap", "metadata": {"name": "spec"}}
SETTLING = Patch("Job", "job", {"spec": {"ttlSecondsAfterFinished": 60}})


def run(phase: Phase, *, begun: bool = True) -> FlashRun:
    manifest = flash_run("team", "run")
    manifest["metadata"] |= {"uid": "uid"}
    resolved = ResolvedStatus() if begun else None
    status = FlashRunStatus(phase=phase, resolved=resolved)
    return FlashRun.from_manifest(manifest).replace(status=status)


NEW, LIVE, ENDED = run(Phase.PENDING, begun=False), run(Phase.RUNNING), run(Phase.SUCCEEDED)
HARMLESS = {
    "a status": (LIVE, Decision(status=LIVE.status)),
    "the first Job": (NEW, Decision(status=NEW.status, apply=(CONFIG_MAP, JOB))),
    "a ConfigMap that is missing": (LIVE, Decision(status=LIVE.status, apply=(CONFIG_MAP,))),
    "a request to save": (LIVE, Decision(status=LIVE.status, control=TrainerControl())),
    "the Job of a run that has ended": (ENDED, Decision(status=ENDED.status, patch=(SETTLING,))),
}
CONSEQUENTIAL = {
    "the end of a run": (LIVE, Decision(status=ENDED.status)),
    "the end of a run that has not begun": (NEW, Decision(status=ENDED.status)),
    "another Job": (LIVE, Decision(status=LIVE.status, apply=(JOB,))),
    "a deletion": (LIVE, Decision(status=LIVE.status, delete=(Delete("Pod", "pod"),))),
    "one after the end": (ENDED, Decision(status=ENDED.status, delete=(Delete("Job", "j"),))),
    "a suspension": (LIVE, Decision(status=LIVE.status, patch=(SETTLING,))),
    "an attempt that is superseded": (LIVE, Decision(status=LIVE.status, supersede=1)),
}  # fmt: skip


@pytest.mark.parametrize("case", HARMLESS)
def test_what_a_later_pass_corrects_follows_from_what_the_watches_have_shown(case: str) -> None:
    assert not needs_confirmation(*HARMLESS[case])


@pytest.mark.parametrize("case", CONSEQUENTIAL)
def test_what_cannot_be_taken_back_is_confirmed(case: str) -> None:
    assert needs_confirmation(*CONSEQUENTIAL[case])
