"""What a namespace lets in: limits, quotas and Pod Security, asked before a run is submitted.

The API server judges a pod like those of the run; nothing is created.
"""

import json
from typing import Any

import pytest

from flashrun.api.public import PublicPool, PublicTrainer
from tests.cli.shell import Served, ask_server


def apply(served: Served, kind: str, spec: dict[str, Any]) -> None:
    manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "team"}, "spec": spec}
    served.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    if kind == "ResourceQuota":
        path = "jsonpath={.status.hard}"
        served.kubectl("wait", "--for", path, "resourcequota/team", "--timeout=60s")


def container_limit(**limit: dict[str, str]) -> dict[str, Any]:
    return {"limits": [{"type": "Container", **limit}]}


REFUSED = [
    ("a range of sizes", "LimitRange", container_limit(max={"memory": "1Mi"}), {},
     "maximum memory usage per Container is 1Mi"),
    ("a default limit below the request", "LimitRange", container_limit(default={"cpu": "50m"}), {},
     "must be less than or equal to cpu limit of 50m"),
    ("a quota on limits that the pool has not", "ResourceQuota", {"hard": {"limits.cpu": "64"}}, {},
     "must specify limits.cpu"),
    ("a priority that nobody defined", "ResourceQuota", {"hard": {"pods": "9"}},
     {"trainer": PublicTrainer(image="registry/trainer@sha256:0", priority_class="absent")},
     "no PriorityClass with name absent was found"),
    ("less memory than a pod needs", "ResourceQuota", {"hard": {"requests.memory": "1e9"}}, {},
     "quota team allows 1e9 requests.memory in namespace NAMESPACE, but the run needs 16Gi: it "
     "would never start"),
    ("GPUs in another notation", "ResourceQuota", {"hard": {"requests.nvidia.com/gpu": "0k"}}, {},
     "but the run needs 1: it would never start"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "spec", "platform", "sentence"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_what_would_never_be_let_in_is_a_problem(
    served: Served, kind: str, spec: dict[str, Any], platform: dict[str, Any], sentence: str
) -> None:
    served.push()
    served.publish(**platform)
    apply(served, kind, spec)
    [problem] = ask_server(served)["problems"]

    assert sentence.replace("NAMESPACE", served.namespace) in problem
    assert served.count("pod") == 0


ACCEPTED = [
    ("a thousand GPUs", {"requests.nvidia.com/gpu": "1k", "pods": "1e1"}, {}),
    ("limits of CPU that the pool has",
     {"limits.cpu": "1e3", "limits.ephemeral-storage": "1Ei", "requests.cpu": "4000m"},
     {"cpu_limit": "6", "ephemeral_storage": "10Gi"}),
]  # fmt: skip


@pytest.mark.parametrize(("hard", "pool"), [r[1:] for r in ACCEPTED], ids=[r[0] for r in ACCEPTED])
def test_what_fits_is_accepted_in_every_notation(
    served: Served, hard: dict[str, str], pool: dict[str, str]
) -> None:
    served.push()
    served.kubectl("label", "namespace", served.namespace, RESTRICTED)
    served.publish(pools=(PublicPool(name="h100", vram=80, **pool),))
    apply(served, "ResourceQuota", {"hard": hard})
    found = ask_server(served)

    assert (found["problems"], found["notes"]) == ([], [])
    assert found["server"]["pod"] == {"accepted": True}


RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


def test_a_quota_that_is_used_up_now_is_a_note(served: Served) -> None:
    served.push()
    apply(served, "ResourceQuota", {"hard": {"pods": "1"}})
    pause = ("run", "other", "--image=registry/pause")
    served.kubectl(*pause)
    served.kubectl("wait", "--for=jsonpath={.status.used.pods}=1", "resourcequota/team")
    found = ask_server(served)

    assert found["problems"] == []
    [note] = found["notes"]
    assert note.endswith("1 are in use, and the run needs 1: it would wait")


def test_a_limit_that_nobody_asked_for_is_a_note(served: Served) -> None:
    served.push()
    apply(served, "LimitRange", container_limit(default={"cpu": "6"}))
    found = ask_server(served)

    assert found["problems"] == []
    assert found["notes"] == ["a LimitRange of the namespace limits the trainer to 6 of cpu"]


def test_an_operator_of_an_earlier_version_says_nothing_about_pods(served: Served) -> None:
    served.push()
    served.publish(trainer=None)
    found = ask_server(served)
    assert found["problems"] == []
    assert found["notes"] == ["the operator is of an earlier version: the pod was not checked"]
