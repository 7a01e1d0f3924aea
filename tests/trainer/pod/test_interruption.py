"""SIGTERM: a stop at any moment of the start is reported, and one in training wakes a thread."""

import os
import subprocess
import sys
from collections.abc import Callable

from flashrun.api.exits import Exit
from tests.trainer.pods import ROOT, TrainerPod

STOPPED = """
import sys
from flashrun_trainer import __main__
from flashrun_trainer import run_attempt
from flashrun_trainer.pod.trainer_errors import InterruptedBeforeTraining

def stopped(*_):
    raise InterruptedBeforeTraining

run_attempt._run_attempt = stopped  # SIGTERM, just when nothing is being done that could fail
sys.exit(__main__.main(["train"]))
"""


def test_a_stop_at_any_moment_of_the_start_is_reported(new_pod: Callable[..., TrainerPod]):
    pod = new_pod()
    (pod.folder / "work").mkdir()
    paths = os.pathsep.join([str(ROOT / "operator/src"), str(ROOT / "trainer-image/src")])
    done = subprocess.run(
        [sys.executable, "-c", STOPPED],
        env={**os.environ, "PYTHONPATH": paths, **pod.environment},
        capture_output=True,
    )
    assert done.returncode == Exit.INTERRUPTED_UNSAVED, done.stderr
    assert pod.termination.reason == "Interrupted"


STUCK = """
import ctypes, os, signal, sys, threading
from flashrun_trainer.pod.interruption import Interruption

interruption = Interruption()
interruption.install_handler()
expected = []
with interruption.stopping(lambda: os._exit(40 if expected else 1)):
    {before}
    expected.append("a stop")
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGTERM]).start()
    libc, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(lock)
    libc.pthread_mutex_lock(lock)  # no signal ends this
"""

FORKS = """
child = os.fork()
    if child == 0:
        signal.pause()
    os.kill(child, signal.SIGTERM)
    how = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert how == -signal.SIGTERM, how
"""


def run_script(script: str) -> int:
    paths = os.pathsep.join([str(ROOT / "operator/src"), str(ROOT / "trainer-image/src")])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run([sys.executable, "-c", script], env=environment, timeout=60).returncode


def test_a_stop_in_training_does_not_wait_for_the_main_thread():
    assert run_script(STUCK.format(before="pass")) == Exit.INTERRUPTED_SAVED


def test_a_fork_ends_by_sigterm_and_stops_nobody_else():
    assert run_script(STUCK.format(before=FORKS.strip())) == Exit.INTERRUPTED_SAVED


AFTERWARDS = """
import os, signal, time
from flashrun_trainer.pod.interruption import Interruption

interruption = Interruption()
interruption.install_handler()
with interruption.stopping(lambda: os._exit(40)):
    os.kill(os.getpid(), signal.SIGUSR1) if signal.signal(signal.SIGUSR1, print) else None
    time.sleep(0.5)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.5)
os._exit(7 if interruption.requested else 8)
"""


def test_a_stop_after_training_lets_the_run_end_and_other_signals_stop_nothing():
    assert run_script(AFTERWARDS) == 7
