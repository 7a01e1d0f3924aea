"""The commands of `python -m localcluster`: every failure is one sentence and an exit code."""

import errno
from collections.abc import Callable

import pytest

from localcluster import __main__ as main
from localcluster import image_recipe
from localcluster.cluster_kind import MachineFacts
from localcluster.steps import FatalError, StepRunner


def failing(error: BaseException) -> Callable[[StepRunner], None]:
    def task(_: StepRunner) -> None:
        raise error

    return task


FAILURES = {
    "a fatal error": (FatalError("no disk; buy one"), 1, "stopped: no disk; buy one\n"),
    "an interruption": (
        KeyboardInterrupt(),
        130,
        "stopped: interrupted; finished steps are kept: run the same command to continue, or "
        "`make down` to remove everything\n",
    ),
    "a full disk": (
        OSError(errno.ENOSPC, "No space left on device", "/x"),
        1,
        "stopped: the disk of /x is full; free some space there, or set XDG_CACHE_HOME and "
        "XDG_STATE_HOME to folders on another disk, and run the same command again\n",
    ),
}


@pytest.mark.parametrize(("error", "code", "line"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_is_one_sentence(
    own_folders: None,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        main._run("up", failing(error))
    assert ended.value.code == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("start", [main.build_images, main.whole_demo])
def test_wrong_variables_are_refused_before_a_cluster_starts(
    own_folders: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    start: Callable[[], None],
) -> None:  # fmt: skip
    def up(*_: object) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(main.lifecycle, "up", up)
    monkeypatch.setattr(
        image_recipe, "machine_facts", lambda: MachineFacts(asked="local", root=True, debian=True)
    )
    monkeypatch.setenv("TRAINER", "rocm")
    with pytest.raises(SystemExit):
        start()
    assert "stopped: TRAINER=rocm is not one of" in capsys.readouterr().err


def test_other_errors_keep_their_traceback(own_folders: None) -> None:
    with pytest.raises(PermissionError):
        main._run("up", failing(PermissionError(errno.EACCES, "no", "/x")))


def test_a_command_prints_where_its_log_is(
    own_folders: None, capsys: pytest.CaptureFixture[str]
) -> None:
    main._run("up", lambda steps: steps.say("done"))
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("log: ")
    assert first.endswith("-up.log")
    assert last == "done"
