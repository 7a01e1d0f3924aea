"""Progress on the terminal: one line per step, and one sentence for a failure."""

import sys

import pytest

from localcluster.steps import FatalError, StepRunner


@pytest.fixture
def steps(tmp_path):
    """A runner that prints."""
    steps = StepRunner(tmp_path / "log")
    yield steps
    steps.close()


def test_a_step_is_one_line_with_its_time_and_detail(steps, capsys):
    with steps.step("make tea") as step:
        step.detail = "Assam"
    line = capsys.readouterr().out
    assert line.startswith("make tea … ok 0.")
    assert line.endswith(" s: Assam\n")
    assert line.count("\n") == 1


def test_a_long_step_tells_every_tenth_once_on_the_same_line(steps, capsys):
    with steps.step("count", total=40) as step:
        for _ in range(40):
            step.advance()
    out = capsys.readouterr().out
    assert "count … 10% 20% 30% 40% 50% 60% 70% 80% 90% ok" in out
    assert out.count("\n") == 1


def test_a_bar_never_runs_past_its_end(steps):
    with steps.step("count", total=2) as step:
        step.advance(5)
        assert step.done == 2


def test_a_failed_step_says_so(steps, capsys):
    with pytest.raises(ValueError, match="boom"), steps.step("explode"):
        raise ValueError("boom")
    assert "explode … failed" in capsys.readouterr().out


def test_what_a_command_prints_goes_to_the_log_alone(steps, capsys):
    output = steps.run([sys.executable, "-c", "print('chatter')"])
    assert output == "chatter\n"
    assert "chatter" in steps.log.read_text()
    assert capsys.readouterr().out == ""


FAILURES = {
    "a failure ends with its last words": (
        "print('first'); print('the cause'); raise SystemExit(3)",
        "baking failed with status 3: the cause",
    ),
    "a full disk is called by its name": (
        "print('write /x: no space left on device'); raise SystemExit(1)",
        "the disk is full; free some space there",
    ),
}


@pytest.mark.parametrize(("script", "sentence"), FAILURES.values(), ids=FAILURES.keys())
def test_a_command_that_fails(steps, script, sentence):
    with pytest.raises(FatalError) as stop:
        steps.run([sys.executable, "-c", script], what="baking")
    assert sentence in str(stop.value)


def test_a_missing_program_is_named(steps):
    with pytest.raises(FatalError, match="the program no-such-program is missing"):
        steps.run(["no-such-program"])
