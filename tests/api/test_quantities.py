"""Quantities are read and multiplied as Kubernetes does it."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some
from kubernetes.utils.quantity import parse_quantity as parse_as_the_client
from pydantic import TypeAdapter, ValidationError

from flashrun.api.quantities import (
    Quantity,
    format_quantity,
    multiply_quantity,
    parse_quantity,
    whole_units,
)


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        *(("0", 0), ("8", 8), (8, 8), ("1k", 1000), ("2e3", 2000), ("2E3", 2000), ("1E", 10**18)),
        *(("1Ki", 1024), ("1.5Gi", 3 * 2**29), ("500m", Decimal("0.5")), ("1n", Decimal("1e-9"))),
        *((".5", Decimal("0.5")), ("5.", 5), ("-1", -1), ("+1", 1), ("1e-3", Decimal("0.001"))),
    ],
)
def test_a_quantity_has_the_value_that_kubernetes_gives_it(quantity, value) -> None:
    assert parse_quantity(quantity) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "1K", "1ki", "1 k", "k", "NaN", "Infinity", "1e", "1e999999999", "0x10", "1_0"),
        *("1kk", "²", None, "9" * 100_000),
    ],
)
def test_text_that_is_not_a_quantity_is_refused_and_counts_nothing(text) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)
    assert whole_units(text) == 0


@given(
    some.decimals(0, 10**12, places=3).map(str),
    some.sampled_from(["", *"numkMGTPE", *(f"{prefix}i" for prefix in "KMGTPE")]),
)
def test_every_unit_means_what_the_kubernetes_client_reads(number: str, unit: str) -> None:
    assert parse_quantity(number + unit) == parse_as_the_client(number + unit)


def test_whole_units_are_rounded_down_and_never_negative() -> None:
    quantities = ("1500m", "999m", "-4", "1k")
    assert [whole_units(quantity) for quantity in quantities] == [1, 0, 0, 1000]


@pytest.mark.parametrize(
    ("quantity", "count", "product"),
    [
        *(("4", 2, "8"), ("500m", 4, "2000m"), ("1.5Gi", 2, "3Gi"), ("0.1", 3, "0.3")),
        *(("250000Mi", 8, "2000000Mi"), ("68719476736", 8, "549755813888"), ("10", 10, "100")),
        ("12345678.5", 2, "24691357"),
    ],
)
def test_a_product_keeps_its_unit_and_all_digits(quantity: str, count: int, product: str) -> None:
    assert multiply_quantity(quantity, count) == product


NOTATIONS = ["0", "8", "1k", "500m", "2e3", "1E3", "1E", "1Ei", "1.5Gi", ".5", "5.", "0.1", "3P"]


@pytest.mark.parametrize("text", NOTATIONS)
def test_settings_take_every_notation_of_kubernetes(text: str) -> None:
    assert TypeAdapter(Quantity).validate_python(text) == text
    parse_quantity(text)


@pytest.mark.parametrize("text", ["-1", "", "1K", "1e", "1 Gi", "Gi", "1e400", "1\n"])
def test_settings_refuse_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Quantity).validate_python(text)


@pytest.mark.parametrize(
    ("quantity", "shown"),
    [
        *(("68719476736", "64Gi"), ("1536Mi", "1536Mi"), ("2000000", "2000000"), ("8", "8")),
        *(("500m", "0.5"), ("1e3", "1000"), ("0", "0"), ("1100m", "1.1"), ("1Ti", "1Ti")),
    ],
)
def test_a_quantity_is_shown_exactly(quantity: str, shown: str) -> None:
    assert format_quantity(parse_quantity(quantity)) == shown
    assert parse_quantity(shown) == parse_quantity(quantity)
