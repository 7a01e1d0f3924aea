"""The demo: its progress bar, the name of a run, and the sentence when flash is missing."""

import sys
from pathlib import Path

import pytest

from localcluster import demo
from localcluster.cluster_kind import ClusterKind
from localcluster.lifecycle import DevCluster
from localcluster.steps import FatalError, Step, StepRunner
from tests.localcluster.stand_ins import StandIns

CLUSTER = DevCluster(
    kind=ClusterKind.LOCAL,
    kubeconfig=Path("kubeconfig"),
    registry="127.0.0.1:5000",
    storage_endpoint="http://10.244.0.1:9000",
    access_key="key",
    secret_key="hush",
    host_ip="10.244.0.1",
)


@pytest.fixture
def flash(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """flash is a recording stand-in, installed beside this Python."""
    stand_ins.add("flash")
    monkeypatch.setattr(sys, "executable", str(stand_ins.folder / "bin" / "python"))
    return stand_ins


def test_two_runs_share_one_bar() -> None:
    step = Step("train", total=2)
    progress_of = demo._shared_bar(step, 2)
    first, second = progress_of(0), progress_of(1)
    first(0.5)
    second(0.25)
    first(1.0)
    assert step.done == 1.25


def test_a_training_reports_its_steps_and_returns_the_name_of_its_run(
    flash: StandIns, steps: StepRunner
) -> None:
    flash.answer("flash train", "flash-1-0123abcd was created\nstep 1/4\nstep 2/4\n")
    fractions: list[float] = []
    name = demo._train("configs/sft.toml", CLUSTER, steps, fractions.append)
    assert name == "flash-1-0123abcd"
    assert fractions == [0.25, 0.5, 1.0]


def test_a_training_without_a_run_ends_in_a_sentence(flash: StandIns, steps: StepRunner) -> None:
    flash.answer("flash train", "nothing to see\n")
    with pytest.raises(FatalError, match=r"flash train configs/sft.toml printed no run name; see"):
        demo._train("configs/sft.toml", CLUSTER, steps, lambda _: None)


def test_the_flash_beside_this_python_is_run(flash: StandIns, steps: StepRunner) -> None:
    flash.answer("flash", "ok\n")
    assert demo.flash(["status", "x"], CLUSTER, steps) == "ok\n"
    assert flash.lines() == ["flash status x"]


def test_a_missing_flash_ends_in_a_sentence(
    stand_ins: StandIns, steps: StepRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(stand_ins.folder / "bin" / "python"))
    with pytest.raises(FatalError, match=r"flash is not installed beside .*; run `make demo`"):
        demo.flash(["status"], CLUSTER, steps)
