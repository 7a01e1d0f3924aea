"""How long a package index can make pip wait, with real pips and a real HTTP server."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.verifiers_packages import VERSION, VerifiersEntry
from flashrun_trainer.init import packages, pip_waits
from tests.trainer.http_servers import serving
from tests.trainer.package_index import QuietHandler, backend, project, source, wheel
from tests.trainer.pods import resolved

SECONDS = 1
"""What takes the place of the longest wait, so that a test does not last for minutes."""
ASKED = {
    "an hour": "3600",
    "a number without end": "9" * 5_000,
    "a date": "Fri, 31 Dec 2199 23:59:59 GMT",
}


class BusyIndex(QuietHandler):
    """Answers the first request for each path with 503, and asks to wait."""

    asked = "3600"
    seen: set[str]

    def send_head(self) -> Any:
        if self.path in self.seen:
            return super().send_head()
        self.seen.add(self.path)
        self.send_response(503)
        self.send_header("Retry-After", self.asked)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an index: a wheel, and a source whose build needs another package."""
    folder = tmp_path / "index"
    wheel(project(folder, "aaa_test"), "aaa_test")
    wheel(project(folder, "builder_test"), "builder_test")
    wheel(project(folder, "verifiers"), "verifiers", version=VERSION)
    table = '[build-system]\nrequires = ["builder_test"]\nbuild-backend = "backend"\n'
    table += 'backend-path = ["."]\n'
    files = {"pyproject.toml": table, "backend.py": backend("built_test")}
    source(project(folder, "built_test"), "built_test", files)
    longest = f"LONGEST_WAIT: Final = {pip_waits.LONGEST_WAIT}\n"
    text = Path(pip_waits.__file__).read_text()
    assert longest in text
    copy = tmp_path / "pip_waits.py"
    copy.write_text(text.replace(longest, f"LONGEST_WAIT: Final = {SECONDS}\n"))
    monkeypatch.setattr(pip_waits, "__file__", str(copy))
    return folder


@contextmanager
def busy_index(folder: Path, asked: str) -> Iterator[str]:
    """Serve an index that is busy at first."""
    handler = type("Index", (BusyIndex,), {"asked": asked, "seen": set()})
    with serving(partial(handler, directory=str(folder))) as address:
        yield address


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_an_index_cannot_make_pip_wait_for_long(tmp_path: Path, packed: Path, asked: str):
    with busy_index(packed, asked) as address:
        run = resolved(environment={"pip": ("aaa_test",)}, pip_index_url=address)
        packages.install_packages(run, tmp_path / "site")

    assert (tmp_path / "site" / "aaa_test.py").exists()


def test_neither_can_it_in_another_environment_and_for_what_a_build_needs(
    tmp_path: Path, packed: Path
):
    with busy_index(packed, ASKED["an hour"]) as address:
        run = resolved(environment={"pip": ("built_test",)}, pip_index_url=address)
        packages.install_own_packages(run, VerifiersEntry("built_test"), tmp_path / "own")

    assert list((tmp_path / "own").rglob("built_test.py"))


def test_the_startup_file_of_the_image_runs_as_well(tmp_path: Path):
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "sitecustomize.py").write_text("print('of the image')\n")
    variables = {"PYTHONPATH": str(tmp_path / "image")}
    environment = pip_waits.bounded_environment(tmp_path / "own", variables)
    done = subprocess.run(
        [sys.executable, "-c", "pass"], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout == "of the image\n"
