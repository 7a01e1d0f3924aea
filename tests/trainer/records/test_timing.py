"""What a step costs: each second belongs to a phase, tokens count from the start of the run."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flashrun_trainer.records import timing
from flashrun_trainer.records.timing import StepPhase, StepTimer


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float) -> None:
        self.now += seconds


def test_the_seconds_of_a_step_are_split_by_phase():
    clock = Clock()
    found = StepTimer(clock=clock)
    found.end_startup_part("loading")
    with found.timed(StepPhase.GENERATION):
        clock.after(3)
    with found.timed(StepPhase.SCORING):
        clock.after(2)
    with found.timed(StepPhase.GENERATION):
        clock.after(1)
    clock.after(4)
    values = found.end_row(500)
    assert {name: value for name, value in values.items() if name.startswith("seconds/")} == {
        "seconds/generation": 4,
        "seconds/scoring": 2,
        "seconds/training": 4,
        "seconds/step": 10,
    }
    assert values["tokens_per_second"] == 50


def test_the_current_phase_has_its_seconds_so_far():
    clock = Clock()
    found = StepTimer(clock=clock)
    assert found.current_phase() == (None, 0.0)
    with found.timed(StepPhase.SCORING):
        clock.after(5)
        assert found.current_phase() == (StepPhase.SCORING, 5)
    assert found.current_phase() == (None, 0.0)


def test_the_seconds_of_an_evaluation_are_in_no_row():
    clock = Clock()
    found = StepTimer(clock=clock)
    found.end_startup_part("loading")
    clock.after(2)
    with found.excluded():
        clock.after(30)
    clock.after(1)
    assert found.end_row(60)["seconds/step"] == 3
    with found.excluded():
        clock.after(30)
    found.count_as_saving()
    clock.after(4)
    values = found.end_row(60)
    assert (values["seconds/step"], values["seconds/saving"]) == (4, 0)


def test_the_seconds_of_a_save_are_in_the_next_row():
    clock = Clock()
    found = StepTimer(clock=clock)
    found.end_startup_part("loading")
    clock.after(1)
    assert "seconds/saving" not in found.end_row(10)
    clock.after(2)
    found.count_as_saving()
    clock.after(1)
    values = found.end_row(20)
    assert (values["seconds/saving"], values["seconds/training"]) == (2, 1)
    assert "seconds/saving" not in found.end_row(30)


def test_tokens_continue_to_count_after_a_resume():
    clock = Clock()
    found = StepTimer(clock=clock)
    found.end_startup_part("loading")
    found.start_tokens_at(1000)
    clock.after(2)
    values = found.end_row(1100)
    assert (values["tokens"], values["tokens_per_second"]) == (1100, 50)


def test_the_first_row_says_how_long_the_start_took_and_no_other_does(tmp_path: Path):
    timing.record_startup_seconds(tmp_path, "model", 20.5)
    timing.record_startup_seconds(tmp_path, "packages", 1.5)
    clock = Clock()
    found = StepTimer(timing.load_startup_seconds(tmp_path), clock=clock)
    clock.after(6)
    found.end_startup_part("loading")
    clock.after(2)
    first, second = found.end_row(10), found.end_row(20)
    shown = {name: value for name, value in first.items() if name.startswith("startup/")}
    imports = shown.pop("startup/imports")
    assert imports > 0
    assert shown == {
        "startup/model": 20.5,
        "startup/packages": 1.5,
        "startup/loading": 6,
        "startup/first_step": 2,
    }
    assert not any(name.startswith("startup/") for name in second)
    assert timing.describe_start(first) == (
        f"{28 + imports:.1f} s without training before the first step: "
        f"model 20.5, packages 1.5, imports {imports:.1f}, loading 6.0"
    )
    assert timing.describe_start(second) == ""


def test_a_pod_without_durations_of_init_containers_still_starts(tmp_path: Path):
    assert timing.load_startup_seconds(tmp_path).keys() == {"imports"}
    (tmp_path / "seconds.json").write_text("{half")
    assert timing.load_startup_seconds(tmp_path).keys() == {"imports"}


def test_the_age_and_the_memory_of_this_process_are_measured():
    assert 0 < timing.process_age_seconds() < 24 * 3600
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    assert timing.peak_memory_bytes() >= pages * os.sysconf("SC_PAGE_SIZE") * 0.5


def test_a_gpu_that_cannot_report_its_peak_does_not_fail_the_run(monkeypatch: pytest.MonkeyPatch):
    def broken() -> int:
        raise RuntimeError("CUDA error: unspecified launch failure")

    cuda = SimpleNamespace(is_available=lambda: True, max_memory_allocated=broken)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert timing.peak_memory_bytes() > 0


@pytest.mark.parametrize("name", ["tokens", "memory/peak_bytes", "tokens_per_second"])
def test_every_row_has_the_metric(name: str):
    assert name in StepTimer().end_row(1)
