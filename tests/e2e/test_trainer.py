"""The trainer's own tests, where they belong: inside the trainer image, with its torch."""

import importlib.util
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Product

pytestmark = pytest.mark.e2e

RUNNER = ("_pytest", "iniconfig", "pluggy", "pytest")
"""The test runner; the image has none, and these are pure Python."""


def test_the_trainers_tests_pass_inside_its_image(product: Product) -> None:
    files = {name: _installed(name) for name in RUNNER}
    files |= {name: ROOT / name for name in ("pyproject.toml", "examples", "tests/trainer")}
    words = ("python3", "-m", "pytest", "tests/trainer", "-m", "trainer", "-o", "addopts=", "-rs")
    report = product.in_trainer_image("trainer-tests", files, *words)
    print(report)

    summary = report.strip().splitlines()[-1]
    assert " passed" in summary
    assert not [word for word in ("failed", "error", "skipped") if word in summary]


def _installed(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
