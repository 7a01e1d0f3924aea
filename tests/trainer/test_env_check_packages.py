"""The pip list of a check: installed as in a pod, kept whole, and explained when it cannot be."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from flashrun_trainer import env_check_packages
from tests.trainer.http_servers import serving
from tests.trainer.package_index import QuietHandler, project, wheel


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package index with a package that needs PyTorch and another one."""
    for name, needs in (("aaa_test", ["bbb_test", "torch"]), ("bbb_test", []), ("torch", [])):
        wheel(project(tmp_path / "index", name), name, needs)
    with serving(partial(QuietHandler, directory=str(tmp_path / "index"))) as address:
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/")
        yield


def test_what_a_package_needs_is_installed_but_not_pytorch(tmp_path: Path):
    site = tmp_path / "cache" / "site"
    assert env_check_packages.main([str(site), "aaa_test"]) == 0

    assert sorted(path.name for path in site.glob("*.py")) == ["aaa_test.py", "bbb_test.py"]
    assert [path.name for path in site.parent.iterdir()] == ["site"]


def test_a_failure_leaves_nothing_and_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    site = tmp_path / "cache" / "site"
    assert env_check_packages.main([str(site), "ccc_test"]) == 1

    assert "ccc_test" in json.loads(capfd.readouterr().out)["sentence"]
    assert list(site.parent.iterdir()) == []


def test_the_versions_of_the_image_are_those_of_this_release():
    assert "transformers==5.19.0" in env_check_packages.image_pins()
    assert not [pin for pin in env_check_packages.image_pins() if pin.startswith("ruff")]
