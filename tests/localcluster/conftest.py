"""Fixtures that tests of several modules of localcluster share."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from localcluster.steps import StepRunner
from tests.localcluster.stand_ins import StandIns


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """Stand-ins for programs; PATH has nothing else."""
    programs = StandIns(tmp_path / "stand-ins")
    monkeypatch.setenv("PATH", str(programs.folder / "bin"))
    return programs


@pytest.fixture
def steps(tmp_path: Path) -> Iterator[StepRunner]:
    """A runner that prints nothing."""
    with closing(StepRunner.silent(tmp_path)) as runner:
        yield runner


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State and cache in a temporary folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
