"""Servers are known again by pid and start time; nobody else is ever stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster.process import Daemons, wait_until, write_if_changed
from localcluster.steps import FatalError

SLEEP = ["sleep", "300"]


@pytest.fixture
def daemons(tmp_path):
    daemons = Daemons(tmp_path, ephemeral=True)
    yield daemons
    for name in daemons.names():
        daemons.stop(name)


def test_a_server_runs_until_it_is_stopped(daemons):
    daemons.start("sleeper", SLEEP)
    pid = daemons.pid("sleeper")
    daemons.stop("sleeper")
    assert pid
    assert not daemons.running("sleeper")
    assert daemons.names() == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_runs_is_not_started_twice(daemons):
    daemons.start("sleeper", SLEEP)
    pid = daemons.pid("sleeper")
    daemons.start("sleeper", SLEEP)
    assert daemons.pid("sleeper") == pid


def test_a_server_with_other_arguments_is_restarted(daemons):
    daemons.start("sleeper", SLEEP)
    pid = daemons.pid("sleeper")
    daemons.start("sleeper", ["sleep", "301"])
    assert daemons.pid("sleeper") not in (None, pid)


def test_a_server_whose_settings_changed_is_restarted(daemons):
    settings = write_if_changed(daemons.folder / "settings", "a")
    daemons.start("sleeper", SLEEP, reads=[settings])
    pid = daemons.pid("sleeper")
    daemons.start("sleeper", SLEEP, reads=[write_if_changed(settings, "a")])
    assert daemons.pid("sleeper") == pid
    daemons.start("sleeper", SLEEP, reads=[write_if_changed(settings, "b")])
    assert daemons.pid("sleeper") not in (None, pid)


def test_a_server_holds_nothing_that_its_starter_left_open(daemons, tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        daemons.start("sleeper", SLEEP)

    def held() -> set[str]:
        return {
            descriptor.name for descriptor in Path(f"/proc/{daemons.pid('sleeper')}/fd").iterdir()
        }

    assert wait_until(
        lambda: held() == {"0", "1", "2"}, 60
    )  # a program that starts opens libraries


def test_a_file_that_already_says_so_is_not_touched(tmp_path):
    before = write_if_changed(tmp_path / "file", "a").stat().st_mtime_ns
    assert write_if_changed(tmp_path / "file", "a").stat().st_mtime_ns == before


@pytest.mark.parametrize("forged", [{"start": 1}, {"boot": "another boot"}])
def test_a_pid_that_the_kernel_gave_to_somebody_else_is_not_ours(daemons, forged):
    with subprocess.Popen(SLEEP) as stranger:
        daemons.start("sleeper", SLEEP)
        file = daemons.folder / "sleeper.pid"
        ours = json.loads(file.read_text())
        file.write_text(json.dumps(ours | {"pid": stranger.pid} | forged))
        assert not daemons.running("sleeper")
        daemons.stop("sleeper")
        assert stranger.poll() is None, "the stranger still runs"
        stranger.kill()
        os.kill(ours["pid"], 9)


def test_half_a_pid_file_is_no_server(daemons):
    daemons.folder.joinpath("crashed.pid").write_text('{"pid": 1')
    assert not daemons.running("crashed")


def test_a_server_that_ends_is_told_with_its_last_words(daemons):
    daemons.start("brief", [sys.executable, "-c", "print('no such flag: --x')"])
    with pytest.raises(FatalError, match="brief ended: no such flag: --x"):
        daemons.wait("brief", lambda: False, 60)


def test_a_server_that_never_answers_is_told(daemons):
    daemons.start("sleeper", SLEEP)
    with pytest.raises(FatalError, match="sleeper does not answer"):
        daemons.wait("sleeper", lambda: False, 0.2)


def test_a_server_that_ignores_a_polite_end_is_killed(daemons):
    script = "import signal,time; signal.signal(15, signal.SIG_IGN); print('up', flush=True)"
    daemons.start("stubborn", [sys.executable, "-c", script + "; time.sleep(300)"])
    assert wait_until(lambda: "up" in daemons.log("stubborn").read_text(), 60)
    daemons.stop("stubborn", grace=0.2)
    assert not daemons.running("stubborn")


def test_ephemeral_servers_end_with_whoever_started_them(tmp_path):
    script = (
        "import os; from pathlib import Path\n"
        "from localcluster.process import Daemons, wait_until\n"
        f"daemons = Daemons(Path({str(tmp_path)!r}), ephemeral=True)\n"
        f"daemons.start('sleeper', {SLEEP!r})\n"
        "program = Path(f'/proc/{daemons.pid(\"sleeper\")}/comm')\n"
        "assert wait_until(lambda: program.read_text() == 'sleep\\n', 30)\n"  # it is tied by now
        "os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert ended.returncode == -9, ended.stderr
    assert wait_until(lambda: not Daemons(tmp_path).running("sleeper"), 30)


def test_a_missing_program_is_named(daemons):
    with pytest.raises(FatalError, match="the program no-such-program is missing"):
        Daemons(daemons.folder).start("missing", ["no-such-program"])
