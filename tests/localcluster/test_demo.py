"""The demo: its progress bar, the name of a run, and the sentence when flash is missing."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from localcluster import demo, real_model
from localcluster.cluster_kind import ClusterKind
from localcluster.lifecycle import DevCluster
from localcluster.steps import FatalError, Step, StepRunner
from tests.localcluster.stand_ins import StandIns
from tests.localcluster.test_comparison import answer, status

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


def test_the_real_model_is_trained_by_sft_and_then_by_grpo_from_its_adapter(
    flash: StandIns,
    steps: StepRunner,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The cluster, the images, the model and its answers are stand-ins."""
    flash.answer("flash train", "flash-2-0123abcd was created\n")
    flash.answer("flash train examples/arithmetic/configs/sft.toml", "flash-1-0123abcd\n")
    for run, step, right in (("1", "", 1.0), ("1", " --step 0", 0.0), ("2", "", 0.0)):
        answered = json.dumps(answer("1 + 1", f"from {run}{step}", right))
        flash.answer(f"flash rollouts flash-{run}-0123abcd --eval{step}", f"{answered}\n")
    for run, score in (("1", "0.75"), ("2", "0.5")):
        flash.answer(f"flash status flash-{run}-0123abcd -o json", status(score))
    flash.answer("flash pull", "adapters/flash-1-0123abcd\n")

    monkeypatch.setattr(demo, "install", lambda *_, **__: CLUSTER)
    monkeypatch.setattr(demo.lifecycle, "exclusive_command", nullcontext)
    monkeypatch.setattr(demo.real_model, "prepare", lambda *_: Path("/cache/model"))
    steps.quiet = False
    demo.run(steps)
    lines, said = flash.lines(), capsys.readouterr().out

    assert lines[:4] == [
        "flash model push /cache/model --id HuggingFaceTB/SmolLM2-135M-Instruct "
        f"--revision {real_model.REVISION}",
        "flash env push examples/arithmetic --name examples/arithmetic",
        "flash train examples/arithmetic/configs/sft.toml",
        "flash train examples/arithmetic/configs/rl.toml "
        "--set train.init_from_adapter=flash-1-0123abcd",
    ]
    assert f"{'1 + 1':19}  from 1 --step 0  from 1  from 2" in said
    assert "Best checkpoint: flash-1-0123abcd/step-24, accuracy 0.75." in said
    [pulled] = [line for line in lines if line.startswith("flash pull")]
    assert pulled.startswith("flash pull flash-1-0123abcd ")
    assert pulled.endswith(" --best")


def test_the_tiny_model_is_trained_at_once_by_both_algorithms(
    flash: StandIns, steps: StepRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    flash.answer("flash train", "flash-1-0123abcd was created\n")
    flash.answer("flash pull", "adapters/flash-1-0123abcd\n")
    monkeypatch.setattr(demo, "install", lambda *_, **__: CLUSTER)
    monkeypatch.setattr(demo.lifecycle, "exclusive_command", nullcontext)
    demo.run(steps, demo.DemoModel.TINY)

    assert sorted(line for line in flash.lines() if line.startswith("flash train")) == [
        "flash train examples/sums/configs/rl.toml",
        "flash train examples/sums/configs/sft.toml",
    ]
