"""The packages of the image, and those that a run has installed beside it."""

from pathlib import Path

import pytest

from flashrun_trainer.pod.image_packages import installed_pins


def test_what_a_run_has_installed_is_listed_with_the_packages_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "judge-2.1.dist-info").mkdir()
    (tmp_path / "judge-2.1.dist-info/METADATA").write_text("Name: judge\nVersion: 2.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert {"judge==2.1", f"pytest=={pytest.__version__}"} <= set(installed_pins())
