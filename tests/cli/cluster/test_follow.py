"""Following a run until its end: no line is lost, and none is repeated."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

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
    assert f"Come back: flash {command} {stage.run} -f; stop it: flash cancel" in told


@contextmanager
def writing_log(stage: Stage) -> Iterator[None]:
    """Write a line of the log every 0.2 seconds, as a run does that does not end."""
    log = stage.pod()
    stage.report(phase="Running", **stage.attempts(1))
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.2):
            log.write("step")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


def follow_into(stage: Stage, output: IO[str] | int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        stage.served.flash.argv("log", stage.run, "-f"),
        env=stage.served.flash.environment,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_following_ends_when_the_reader_of_its_pipe_has_enough(stage: Stage) -> None:
    with writing_log(stage), follow_into(stage, subprocess.PIPE) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "step\n"
        following.stdout.close()
        code = following.wait(60)

    assert code == 0


def test_following_ends_when_the_disk_is_full(stage: Stage) -> None:
    with writing_log(stage), open("/dev/full", "w") as full, follow_into(stage, full) as following:
        _, told = following.communicate(timeout=60)

    assert "No space left on device" in told
    assert following.returncode == 1


def test_lines_that_the_pipe_cannot_encode_arrive_with_question_marks(stage: Stage) -> None:
    stage.served.flash.variables["PYTHONIOENCODING"] = "cp1252"
    stage.pod().write("\N{CHECK MARK} done")
    stage.report(phase="Running", **stage.attempts(1))
    with Following(stage, "log", stage.run, "-f") as following:
        following.wait_for("? done")
        stage.ended()
        stage.report(phase="Succeeded")
        following.finish()
