"""Quantities as Kubernetes writes them, such as ``500m``, ``16Gi``, ``1k`` or ``2e3``.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import Field

_QUANTITY: Final = re.compile(
    r"(?P<number>[+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40}))"
    r"(?P<unit>[eE][+-]?\d{1,2}|[numkMGTPE]|[KMGTPE]i)?"
)
_DECIMAL: Final[dict[str, int]] = dict(
    zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)
)
_BINARY: Final[dict[str, int]] = {
    f"{prefix}i": 1024**power for power, prefix in enumerate("KMGTPE", 1)
}


Quantity = Annotated[
    str,
    Field(
        pattern=r"^(?:[0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})"
        r"(?:[eE][+-]?[0-9]{1,2}|[numkMGTPE]|[KMGTPE]i)?$"
    ),
]
"""A quantity that is not negative, as settings take it."""


def parse_quantity(quantity: Any) -> Decimal:
    """Return the value of a quantity; raises ``ValueError`` when it is not one."""
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        raise ValueError(f"{str(quantity)[:64]!r} is not a quantity of Kubernetes")
    number, unit = Decimal(match["number"]), match["unit"] or ""
    if unit in _BINARY:
        return number * _BINARY[unit]
    exponent = _DECIMAL[unit] if unit in _DECIMAL else int(unit[1:] or 0)
    return number.scaleb(exponent)


def whole_units(quantity: Any) -> int:
    """Return how many whole units a quantity has; 0 when it is negative or not a quantity.

    People other than the operator's write such a quantity into nodes and pods.
    """
    try:
        return max(0, int(parse_quantity(quantity)))
    except ValueError:
        return 0


def format_quantity(value: Decimal) -> str:
    """Return a quantity for people: exact, and in the largest binary unit that divides it."""
    for unit, size in reversed(_BINARY.items()):
        if value >= size and value % size == 0:
            return f"{value / size:f}{unit}"
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def multiply_quantity(quantity: str, count: int) -> str:
    """Return ``count`` times a quantity, in the same unit and without an exponent of ten."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity[:64]!r} is not a quantity of Kubernetes")
    product = f"{Decimal(match['number']) * count:f}"
    product = product.rstrip("0").rstrip(".") if "." in product else product
    return product + (match["unit"] or "")
