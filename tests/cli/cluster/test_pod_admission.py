"""What a namespace lets in: limits, quotas and Pod Security, asked before a run is submitted.

The API server judges a pod like those of the run; nothing is created.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.platform import PodSettings
from flashrun.api.public import PublicPool
from tests.cli.shell import SERVER_DRY_RUN, Served, ask_server
from tests.injector import serve_injector


def apply(served: Served, kind: str, spec: dict[str, Any]) -> None:
    manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "team"}, "spec": spec}
    served.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    if kind == "ResourceQuota":
        path = "jsonpath={.status.hard}"
        served.kubectl("wait", "--for", path, "resourcequota/team", "--timeout=60s")


@contextmanager
def changed_pods(served: Served, webhook: dict[str, Any]) -> Iterator[None]:
    """Let a webhook change the pods of the namespace until the end of the context."""
    made = json.dumps(webhook)
    served.kubectl("create", "-f", "-", stdin=made)
    try:
        yield
    finally:
        served.kubectl("delete", "-f", "-", stdin=made)


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
     {"trainer": PodSettings(image="registry/trainer@sha256:0", priority_class="absent")},
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
UNCONFINED = {"container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"}
"""An annotation of the chart's values that no level but the privileged one allows."""


def added(**context: Any) -> list[dict[str, Any]]:
    """The change of a webhook that adds an init container, as meshes do."""
    limits = {"cpu": "1", "memory": "1Mi"}
    container = {"name": "mesh-init", "image": "registry/mesh", "resources": {"limits": limits}}
    value = {**container, "securityContext": context}
    return [{"op": "add", "path": "/spec/initContainers/0", "value": value}]


NETWORK = added(capabilities={"add": ["NET_ADMIN"]})
SERVER_USER = added(
    runAsUser=0, runAsNonRoot=False, allowPrivilegeEscalation=False, capabilities={"drop": ["ALL"]}
)
LEVELS = [
    ("privileged, a profile", "privileged", UNCONFINED, [], ""),
    ("baseline, a profile", "baseline", UNCONFINED, [], 'AppArmor profile type to "Unconfined"'),
    ("restricted, a profile", "restricted", UNCONFINED, [], 'profile type to "Unconfined"'),
    ("privileged, a capability", "privileged", {}, NETWORK, ""),
    ("baseline, a capability", "baseline", {}, NETWORK, 'must not include "NET_ADMIN"'),
    ("restricted, a capability", "restricted", {}, NETWORK, 'must not include "NET_ADMIN"'),
    ("baseline, root", "baseline", {}, SERVER_USER, ""),
    (
        "restricted, root",
        "restricted",
        {},
        SERVER_USER,
        "must not set securityContext.runAsNonRoot=false",
    ),
]


@pytest.mark.parametrize(
    ("level", "annotations", "change", "refusal"), [row[1:] for row in LEVELS],
    ids=[row[0] for row in LEVELS],
)  # fmt: skip
def test_pod_security_judges_the_pod_that_the_namespace_would_get(
    served: Served,
    tmp_path: Path,
    level: str,
    annotations: dict[str, str],
    change: list[dict[str, Any]],
    refusal: str,
) -> None:
    served.push()
    trainer = PodSettings(image="registry/trainer@sha256:0", annotations=annotations)
    served.publish(trainer=trainer)
    label = f"pod-security.kubernetes.io/enforce={level}"
    served.kubectl("label", "namespace", served.namespace, label)
    with (
        serve_injector(served.namespace, tmp_path, change) as webhook,
        changed_pods(served, webhook),
    ):
        done = served.flash(*SERVER_DRY_RUN)
        found = ask_server(served)

    assert (done.returncode, "Traceback" in done.stderr) == (2 if refusal else 0, False)
    assert found["server"]["pod"] == {"accepted": not refusal}
    assert len(found["problems"]) == bool(refusal)
    for shown in (*found["problems"], *([done.stderr] if refusal else [])):
        assert f'violates PodSecurity "{level}:latest"' in shown
        assert refusal in shown
    assert served.count("pod") == 0


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
