"""Following a run until its end: no line is lost, and none is repeated."""

import time

import pytest

from tests.cli.following import Following, Stage


def test_lines_written_just_before_the_end_are_shown(stage: Stage) -> None:
    log = stage.pod()
    stage.report(phase="Running", **stage.attempts(1))
    log.write("first")
    with Following(stage, "log", stage.run, "-f") as following:
        following.wait_for("first")
        log.write(*(f"line {number}" for number in range(500)), "last")
        stage.ended()
        stage.report(phase="Succeeded")
        lines, code = following.finish()

    assert lines == ["first", *(f"line {number}" for number in range(500)), "last"]
    assert code == 0


def test_the_rest_of_a_vanished_pods_log_comes_from_storage(stage: Stage) -> None:
    log = stage.pod()
    stage.report(phase="Running", **stage.attempts(1))
    log.write("one", "two")
    with Following(stage, "log", stage.run, "-f") as following:
        following.wait_for("two")
        stage.stored("one\ntwo\nthree\nfour\n")
        stage.gone()
        stage.report(phase="Failed")
        lines, _ = following.finish()

    assert lines == ["one", "two", "three", "four"]


@pytest.mark.parametrize("command", ["log", "status"])
def test_control_c_prints_how_to_come_back(stage: Stage, command: str) -> None:
    stage.pod().write("one")
    stage.report(phase="Running", **stage.attempts(1))
    with Following(stage, command, stage.run, "-f") as following:
        if command == "log":
            following.wait_for("one")
        else:
            time.sleep(2)  # nothing on standard output says that it has begun
        told, code = following.interrupt()

    assert code == 130
    assert f"Come back: flash log {stage.run} -f" in told
