"""The trainer's own tests, where they belong: inside the trainer image, with its torch."""

import pytest

from tests.e2e.conftest import ROOT, Product

pytestmark = pytest.mark.e2e


def test_the_trainers_tests_pass_inside_its_image(product: Product) -> None:
    report = product.pytest_in_trainer_image(ROOT / "tests" / "trainer")
    print(report)
    assert " passed" in report.splitlines()[-1]
    assert "failed" not in report.splitlines()[-1]
