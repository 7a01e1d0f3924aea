"""Blocking calls beside an event loop: their answers and errors, and that none keeps a program."""

import asyncio
import subprocess
import sys
import threading

import pytest

from flashrun.daemon_thread import in_daemon_thread


async def test_a_call_runs_in_another_thread_and_its_answer_comes_back() -> None:
    assert await in_daemon_thread(threading.get_ident) != threading.get_ident()


async def test_an_error_of_a_call_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_daemon_thread(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(SystemExit(3), SystemExit), (KeyboardInterrupt(), KeyboardInterrupt),
     (StopIteration(), RuntimeError), (asyncio.CancelledError(), asyncio.CancelledError)],
)  # fmt: skip
def test_what_ends_a_thread_is_raised_where_its_answer_is_awaited(
    error: BaseException, raised: type[BaseException]
) -> None:
    def call() -> None:
        raise error

    async def wait() -> None:
        await asyncio.wait_for(in_daemon_thread(call), 10)

    with pytest.raises(raised):
        asyncio.run(wait())


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
