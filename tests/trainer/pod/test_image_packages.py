"""The packages of the image, and those that a run has installed beside it."""

from pathlib import Path

import pytest

from flashrun_trainer.pod.image_packages import installed_pins


def distribution(folder: Path, name: str, version: str, more: str = "") -> str:
    """Install a package without files into a folder; return the folder."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}"
    (info / "METADATA").write_text(text)
    return str(folder)


def test_what_a_run_has_installed_is_listed_with_the_packages_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(distribution(tmp_path, "judge", "2.1"))
    assert {"judge==2.1", f"pytest=={pytest.__version__}"} <= set(installed_pins())


def test_a_package_that_the_system_has_too_has_the_version_that_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With the other version as a constraint, pip would replace what the image imports."""
    system = distribution(tmp_path / "system", "Number_Cruncher", "2.2")
    monkeypatch.syspath_prepend(system)
    monkeypatch.syspath_prepend(distribution(tmp_path / "venv", "number-cruncher", "2.3"))
    pins = [pin for pin in installed_pins() if "cruncher" in pin.lower()]
    assert pins == ["number-cruncher==2.3"]


def test_a_description_names_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    more = "License: as that of\n        Name: another\n\nName: judge-of-old\nVersion: 0.1\n"
    monkeypatch.syspath_prepend(distribution(tmp_path, "judge", "2.1", more))
    assert [pin for pin in installed_pins() if "judge" in pin] == ["judge==2.1"]
