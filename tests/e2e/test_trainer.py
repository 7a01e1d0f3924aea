"""The trainer's own tests, where they belong: inside the trainer image, with its torch."""

import importlib.util
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Product

pytestmark = pytest.mark.e2e

RUNNER = ("_pytest", "iniconfig", "pluggy", "py", "pytest")
"""The test runner; the image has none, and these are pure Python."""


def test_the_trainers_tests_pass_inside_its_image(product: Product) -> None:
    files = dict(map(_installed, RUNNER))
    files |= {name: ROOT / name for name in ("examples", "tests/trainer")}
    words = ("python3", "-m", "pytest", "tests/trainer", "-m", "trainer", "-rs", "--durations=8")
    report = product.in_trainer_image("trainer-tests", files, *words, "--import-mode=importlib")
    print(report)

    summary = report.strip().splitlines()[-1]
    assert " passed" in summary
    assert not [word for word in ("failed", "error", "skipped") if word in summary]


def _installed(module: str) -> tuple[str, Path]:
    """Return a module's name as a file or folder, and where it is."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin)
    return (module, path.parent) if path.name == "__init__.py" else (path.name, path)
