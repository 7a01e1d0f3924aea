"""The trainer's own tests, where they belong: inside the trainer image, with its torch."""

import pytest

from tests.e2e.conftest import TRAINER_TESTS, Product

pytestmark = pytest.mark.e2e

OLD_TORCH = "PyTorch before 2.7 cannot shard a model on CPUs"
"""What Debian's torch in the local cluster's image may leave out: ``make test-sharding`` has it."""


def test_the_trainers_tests_pass_inside_its_image(product: Product) -> None:
    report = product.output_of(TRAINER_TESTS)
    print(report)

    *lines, summary = report.strip().splitlines()
    assert " passed" in summary
    assert not [word for word in ("failed", "error") if word in summary]
    left_out = [line for line in lines if line.startswith("SKIPPED")]
    assert all(line.endswith(OLD_TORCH) for line in left_out)
    assert ("skipped" in summary) == bool(left_out)
