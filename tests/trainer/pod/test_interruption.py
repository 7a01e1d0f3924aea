"""SIGTERM: a stop at any moment of the start is reported."""

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
