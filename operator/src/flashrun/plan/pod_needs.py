"""What a pod counts against the quotas of its namespace.

https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from flashrun.api.quantities import parse_quantity
from flashrun.plan.types import Object

_SHORT_NAMES: Final = ("cpu", "memory", "ephemeral-storage")
"""Resources whose requests a quota may also name without ``requests.``."""


def pod_needs(spec: Object) -> dict[str, Decimal]:
    """Return the need of one pod for each resource that a quota may name.

    Init containers run one after another before the others, so that the largest of them counts, or
    the sum of the others. A request that is missing is the limit.
    """
    needs = {"pods": Decimal(1), "count/pods": Decimal(1)}
    for kind in ("requests", "limits"):
        main = _sum(_amounts(spec.get("containers") or (), kind))
        before = list(_amounts(spec.get("initContainers") or (), kind))
        for name in main.keys() | {name for amounts in before for name in amounts}:
            largest = max((amounts.get(name, Decimal(0)) for amounts in before), default=Decimal(0))
            needs[f"{kind}.{name}"] = max(main.get(name, Decimal(0)), largest)
    return needs | {
        name: needs[f"requests.{name}"] for name in _SHORT_NAMES if f"requests.{name}" in needs
    }


def _amounts(containers: Iterable[Object], kind: str) -> Iterable[dict[str, Decimal]]:
    for container in containers:
        resources = container.get("resources") or {}
        limits = resources.get("limits") or {}
        amounts = limits if kind == "limits" else {**limits, **(resources.get("requests") or {})}
        yield {name: parse_quantity(amount) for name, amount in amounts.items()}


def _sum(containers: Iterable[dict[str, Decimal]]) -> dict[str, Decimal]:
    total: dict[str, Decimal] = {}
    for amounts in containers:
        for name, amount in amounts.items():
            total[name] = total.get(name, Decimal(0)) + amount
    return total
