"""Following a run until its end: no line is lost, and none is repeated."""

import asyncio
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import IO, Any, cast

import pytest
import typer
import yaml

from flashrun.api.reasons import Reason
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster import follow
from flashrun.cli.output.failure import ExitCode
from flashrun.cli.output.run_view import PlainView, RunView
from tests.cli.following import Following, Stage
from tests.cli.golden import RUNS, golden_run

GOLDEN = RUNS / "evaluated-sft" / "flashrun.yaml"


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
            following.wait_for_note(stage.run)  # its first line about the status
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


class PodThatRuns:
    """A cluster with one pod, whose trainer runs; the logs of its init containers come late."""

    def __init__(self, hanging: str = "") -> None:
        ended = {"state": {"terminated": {"exitCode": 0, "containerID": "c"}}}
        self.hanging = hanging
        self.pod: dict[str, Any] = {
            "metadata": {"name": "pod"},
            "status": {
                "initContainerStatuses": [
                    {"name": name, **ended} for name in ("model", "packages")
                ],
                "containerStatuses": [{"name": "trainer", **ended}],
            },
        }

    async def list(self, *_: object) -> Sequence[dict[str, Any]]:
        return [self.pod]

    async def find(self, *_: object) -> dict[str, Any]:
        return self.pod

    async def logs(self, _: str, pod: str, container: str, **__: object) -> AsyncIterator[str]:
        if container == self.hanging:
            await asyncio.sleep(600)
        elif not self.hanging:
            await asyncio.sleep({"model": 0.2, "packages": 0.1, "trainer": 0.0}[container])
        yield f"2026-11-22T12:00:00Z {pod}"


def lines_of(
    cluster: PodThatRuns, monkeypatch: pytest.MonkeyPatch, seconds: float = 60
) -> list[str]:
    monkeypatch.setattr(follow, "EARLIER_LOG_SECONDS", seconds)
    shown: list[str] = []
    view = SimpleNamespace(show_log_line=shown.append, show_notice=shown.append)

    async def read() -> None:
        session: Any = SimpleNamespace(cluster=cluster)
        streams = follow.LogStreams(session, golden_run("running"), cast(RunView, view))
        await streams.start_new(streams.run)
        await asyncio.wait(streams.tasks[-1:])
        await streams.stop()

    asyncio.run(read())
    return shown


def test_lines_of_init_containers_come_before_those_of_the_trainer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert lines_of(PodThatRuns(), monkeypatch) == ["[model] pod", "[packages] pod", "pod"]


def test_a_log_that_never_ends_holds_no_other_back_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert lines_of(PodThatRuns("packages"), monkeypatch, 0.5) == ["[model] pod", "pod"]


def test_the_last_lines_of_a_view_have_the_end_of_the_last_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run ends with its result in storage, and its pod a little later."""
    attempt = {"number": 1, "pod": "p", "start": "2026-11-22T12:00:00Z"}
    ended = attempt | {"end": "2026-11-22T12:01:00Z", "reason": "Completed"}
    readings = [{"phase": "Succeeded", "attempts": [item]} for item in (attempt, attempt, ended)]
    session: Any = RunOfStates(*readings)
    shown: list[FlashRun] = []
    view = SimpleNamespace(
        leaves_answer=True, takes_log=False, takes_metrics=False, show_notice=print,
        show_status=shown.append, redraw=lambda: None,
    )  # fmt: skip
    monkeypatch.setattr(follow, "open_view", lambda *_: nullcontext(view))

    assert asyncio.run(follow.follow_or_detach(session, "run"))
    assert shown[0].status.attempts[0].end is None
    assert shown[-1].status.attempts[0].reason == "Completed"


class RunOfStates:
    """A session whose run has one state after the other."""

    def __init__(self, *states: dict[str, Any]) -> None:
        self.states = [*states]

    async def get_manifest(self, _: str) -> dict[str, Any]:
        manifest = yaml.safe_load(GOLDEN.read_text())
        manifest["metadata"] |= {"namespace": "team", "generation": 2}
        return {**manifest, "status": self.states.pop(0)}

    async def get_run(self, name: str) -> FlashRun:
        return FlashRun.from_manifest(await self.get_manifest(name))


def test_following_ends_when_the_budget_is_used_up_and_goes_on_when_it_was_just_raised() -> None:
    used_up = {"reason": "BudgetUsedUp", "message": "The run has used 2 of its 2 GPU hours."}
    paused = {"phase": "Suspended", "pending": used_up}
    before, ended = paused | {"observedGeneration": 1}, paused | {"observedGeneration": 2}
    session: Any = RunOfStates(before, {"phase": "Running"}, {"phase": "Suspended"}, ended, {})
    view: Any = PlainView()
    run = asyncio.run(follow.follow_run(session, "run", view, log=False))

    assert run.status.observed_generation == 2
    assert len(session.states) == 1
    with pytest.raises(typer.Exit) as stopped:
        follow.report_outcome(run)
    assert stopped.value.exit_code == ExitCode.RUN_FAILED


@pytest.mark.parametrize(
    ("patience", "shown"), [(60.0, ["Running"]), (0.0, ["Pending", "Running"])]
)
def test_that_no_operator_has_seen_a_run_is_news_after_a_moment(
    monkeypatch: pytest.MonkeyPatch, patience: float, shown: list[str]
) -> None:
    monkeypatch.setattr(follow, "UNSEEN_SECONDS", patience)
    unseen = {"pending": {"reason": Reason.UNSEEN, "message": Reason.UNSEEN.sentence}}
    used_up = {"reason": Reason.BUDGET_USED_UP, "message": "All GPU hours are used up."}
    over = {"phase": "Suspended", "observedGeneration": 2, "pending": used_up}
    session: Any = RunOfStates(unseen, {"phase": "Running"}, over)
    phases: list[str] = []
    view: Any = SimpleNamespace(
        takes_log=False, takes_metrics=False, show_notice=print, redraw=lambda: None,
        show_status=lambda run: phases.append(run.status.phase),
    )  # fmt: skip
    asyncio.run(follow.follow_run(session, "run", view, log=False))

    assert phases == [*shown, "Suspended"]


def test_a_change_is_expected_when_all_logs_have_ended_a_moment_ago(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def read() -> list[bool]:
        view: Any = SimpleNamespace(show_log_line=print, show_notice=print)
        session: Any = SimpleNamespace(cluster=PodThatRuns())
        streams = follow.LogStreams(session, golden_run("running"), view)
        await streams.start_new(streams.run)
        found = [streams.expect_change]
        await asyncio.wait(streams.tasks)
        found.append(streams.expect_change)
        monkeypatch.setattr(follow, "NEWS_SECONDS", 0.0)
        return [*found, streams.expect_change]

    assert asyncio.run(read()) == [False, True, False]


LAST_WORDS = [
    ("the trainer's last line", "INFO attempt 2 ends with code 0 (Succeeded)", True),
    ("that of a launcher", "INFO attempt 1 ends with code 40", True),
    ("a line of a reward", "the attempt ends with code", False),
    ("a step", "step 3 of 48  loss 1.5", False),
]  # fmt: skip


class TalkingPod(PodThatRuns):
    """A pod whose status and log never end; its trainer says one line."""

    def __init__(self, name: str, line: str) -> None:
        super().__init__()
        self.line = line
        self.pod["metadata"]["name"] = name
        self.pod["status"]["containerStatuses"] = [{"name": "trainer", "state": {"running": {}}}]

    async def logs(self, _: str, pod: str, container: str, **__: object) -> AsyncIterator[str]:
        yield f"2026-11-22T12:01:00Z {self.line if container == 'trainer' else container}"
        if container == "trainer":
            await asyncio.sleep(600)


@pytest.mark.parametrize(
    ("line", "is_last"), [case[1:] for case in LAST_WORDS], ids=[case[0] for case in LAST_WORDS]
)
def test_a_log_is_read_to_the_last_words_of_the_trainer(
    line: str, is_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet closes the log a second later."""
    monkeypatch.setattr(follow, "LAST_LINES_SECONDS", 2.0)

    run = golden_run("running")
    [attempt] = run.status.attempts
    asked: list[object] = []

    async def storage(_: object) -> bytes:
        asked.append(attempt)
        return b""

    async def finish() -> tuple[bool, float]:
        view: Any = SimpleNamespace(show_log_line=print, show_notice=print)
        session: Any = SimpleNamespace(cluster=TalkingPod(attempt.pod, line), with_store=storage)
        streams = follow.LogStreams(session, run, view)
        await streams.start_new(run)
        await asyncio.sleep(0.5)
        expects, began = streams.expect_change, time.monotonic()
        await streams.finish()
        return expects, time.monotonic() - began

    expects_change, waited = asyncio.run(finish())
    assert expects_change == is_last
    assert (waited < 1) == is_last
    assert asked == ([] if is_last else [attempt]), "the rest is in storage"
