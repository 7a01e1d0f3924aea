"""The trainer's own tests, where they belong: inside the trainer image, with its torch."""

import pytest

from tests.e2e.conftest import TRAINER_TESTS, Product

pytestmark = pytest.mark.e2e


def test_the_trainers_tests_pass_inside_its_image(product: Product) -> None:
    report = product.output_of(TRAINER_TESTS)
    print(report)

    summary = report.strip().splitlines()[-1]
    assert " passed" in summary
    assert not [word for word in ("failed", "error", "skipped") if word in summary]
