"""Programs are built once for the same sources, and an interrupted build leaves nothing."""

import shutil
import subprocess

import pytest

from localcluster import toolchain
from localcluster.steps import FatalError, StepRunner

pytestmark = pytest.mark.api  # it builds programs, which takes seconds


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What Go has compiled of its own library: the same for all tests."""
    return tmp_path_factory.mktemp("go-build")


@pytest.fixture
def sources(tmp_path, compiled, monkeypatch):
    """A copy of the smallest program's sources, and an empty cache of programs."""
    copy = tmp_path / "go"
    shutil.copytree(toolchain.GO_SOURCES / "pause", copy / "pause")
    monkeypatch.setattr(toolchain, "GO_SOURCES", copy)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GOCACHE", str(compiled))
    return copy / "pause"


@pytest.fixture
def steps(tmp_path):
    steps = StepRunner.silent(tmp_path)
    yield steps
    steps.close()


def test_a_program_is_built_once_and_runs(sources, steps):
    program = toolchain.program("pause", steps)
    built = program.stat().st_mtime_ns
    assert toolchain.program("pause", steps).stat().st_mtime_ns == built
    with subprocess.Popen([program]) as running:
        running.terminate()
        assert running.wait(5) in (0, -15)


def test_other_sources_are_another_program(sources, steps):
    before = toolchain.program("pause", steps)
    with (sources / "main.go").open("a") as file:
        file.write("// changed\n")
    assert toolchain.program("pause", steps) != before


def test_a_build_that_fails_leaves_nothing_that_looks_finished(sources, steps, tmp_path):
    (sources / "main.go").write_text("package main\nfunc main() { undefined() }\n")
    with pytest.raises(FatalError, match=r"building pause with Go failed .*undefined"):
        toolchain.program("pause", steps)
    left = [p.name for p in (tmp_path / "cache/flashrun/bin").iterdir() if p.suffix != ".lock"]
    assert left == []


def test_every_hash_differs():
    digests = {toolchain._digest(program) for program in toolchain.PROGRAMS.values()}
    assert len(digests) == len(toolchain.PROGRAMS)


def test_no_program_names_where_its_modules_are_downloaded_from():
    for name in ("coredns", "kubernetes", "pause"):
        text = (toolchain.GO_SOURCES / name / "go.mod").read_text()
        assert "://" not in text
        assert "proxy." not in text


def test_a_machine_without_go_is_told(monkeypatch, steps, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FatalError, match="Go is missing; install Go"):
        toolchain.program("pause", steps)
