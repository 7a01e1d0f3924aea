"""Threads that work on a list of items, and end with the program."""

import signal
import subprocess
import sys
import threading

import pytest

from flashrun.daemon_pool import in_daemon_threads


def test_several_threads_work_and_the_answers_keep_their_order() -> None:
    both = threading.Barrier(2)

    def work(item: int) -> int:
        both.wait(10)
        return item * 2

    assert in_daemon_threads(work, [3, 1, 2, 4], 2) == [6, 2, 4, 8]
    assert in_daemon_threads(work, [], 2) == []


def test_after_an_error_no_item_is_begun() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        return 1 // item

    with pytest.raises(ZeroDivisionError):
        in_daemon_threads(work, [1, 0, 2, 3], 1)
    assert begun == [1, 0]


def test_threads_that_hang_do_not_keep_an_interrupted_program_from_ending() -> None:
    program = (
        "import time\n"
        "from flashrun.daemon_pool import in_daemon_threads\n"
        "def hang(item):\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(3600)\n"
        "in_daemon_threads(hang, [1] * 8, 4)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whoever starts tests in the background has SIGINT ignored in all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        try:
            assert running.stdout is not None
            running.stdout.readline()
            running.send_signal(signal.SIGINT)
            assert b"KeyboardInterrupt" in running.communicate(timeout=30)[1]
        finally:
            running.kill()
