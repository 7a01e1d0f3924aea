"""Blocking calls beside an event loop: their answers and errors, and that none keeps a program."""

import asyncio
import signal
import subprocess
import sys
import threading

import pytest

from flashrun.daemon_thread import in_daemon_thread, in_daemon_threads


async def test_a_call_runs_in_another_thread_and_its_answer_comes_back() -> None:
    assert await in_daemon_thread(threading.get_ident) != threading.get_ident()


async def test_an_error_of_a_call_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_daemon_thread(lambda: 1 // 0)


async def test_nobody_waits_for_a_call_that_is_given_up() -> None:
    hold = threading.Event()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(in_daemon_thread(hold.wait), 0.01)
    hold.set()


def test_a_call_that_hangs_does_not_keep_the_program_from_ending() -> None:
    program = (
        "import asyncio, time\n"
        "from flashrun.daemon_thread import in_daemon_thread\n"
        "async def main():\n"
        "    asyncio.create_task(in_daemon_thread(lambda: time.sleep(3600)))\n"
        "    await asyncio.sleep(0.01)\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


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
        "from flashrun.daemon_thread import in_daemon_threads\n"
        "def hang(item):\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(3600)\n"
        "in_daemon_threads(hang, [1] * 8, 4)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in running.communicate(timeout=30)[1]
