"""What a pod counts against quotas."""

from decimal import Decimal

import pytest

from flashrun.plan.pod_needs import pod_needs


def box(requests: dict | None = None, limits: dict | None = None) -> dict:
    return {"resources": {"requests": requests or {}, "limits": limits or {}}}


CASES = [
    ("the sum of the containers", [], [box({"cpu": "500m"}), box({"cpu": "1.5"})],
     {"requests.cpu": 2, "cpu": 2}),
    ("an init container that needs more", [box({"memory": "4Gi"}), box({"memory": "1Gi"})],
     [box({"memory": "2Gi"})], {"requests.memory": 4 * 2**30, "memory": 4 * 2**30}),
    ("a limit without a request", [], [box(limits={"nvidia.com/gpu": "1k"})],
     {"requests.nvidia.com/gpu": 1000, "limits.nvidia.com/gpu": 1000}),
    ("other notations", [], [box({"cpu": "1e1", "ephemeral-storage": "2E3"}, {"cpu": "12"})],
     {"limits.cpu": 12, "ephemeral-storage": 2000}),
    ("a container without resources", [], [{}], {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("init", "main", "needs"), [r[1:] for r in CASES], ids=[r[0] for r in CASES]
)
def test_a_pod_counts_what_kubernetes_counts(init: list, main: list, needs: dict) -> None:
    found = pod_needs({"initContainers": init, "containers": main})
    assert {name: found[name] for name in needs} == needs
    assert found["pods"] == found["count/pods"] == Decimal(1)
