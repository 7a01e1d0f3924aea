"""The files with a kubeconfig's certificates: they last as long as the program that reads it."""

import subprocess
import sys
from pathlib import Path

FORKS = """
import os, pathlib, sys
from flashrun.kubeconfig import _private_file
path = _private_file(b"certificate")
if os.fork() == 0:
    assert _private_file(b"certificate") == path
    sys.exit()
os.wait()
print(pathlib.Path(path).read_text(), path)
"""


def test_a_forked_process_that_ends_leaves_them_to_the_program_which_removes_them() -> None:
    command = [sys.executable, "-W", "error", "-c", FORKS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    content, path = done.stdout.split()

    assert content == "certificate"
    assert not Path(path).parent.exists()
    assert done.stderr == ""
