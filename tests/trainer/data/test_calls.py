"""Calls with a time limit, on the thread of the caller and on others, and what hanging costs."""

import ctypes
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from flashrun_trainer.data.calls import CallRunner, CallTimeoutError, WorkerDiedError
from flashrun_trainer.pod.trainer_errors import InterruptedBeforeTraining
from tests.trainer.panics import PanicError

LIMIT = 0.3


def sleep(_: Any) -> None:
    time.sleep(60)


def spin(_: Any) -> None:
    while True:
        pass


def swallow(_: Any) -> None:
    while True:
        try:
            while True:
                pass
        except Exception:
            continue


def wait_for_a_lock(_: Any) -> None:
    threading.Event().wait()


HANGS: list[Callable[[Any], None]] = [sleep, spin, swallow, wait_for_a_lock]


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("hang", HANGS)
def test_a_call_that_hangs_is_given_up_and_costs_the_others_nothing(
    hang: Callable[[Any], None], threads: int
):
    def call(item: int) -> int:
        if item == 2:
            hang(item)
        if item == 4:
            raise ConnectionError("away")
        return item

    runner = CallRunner(threads, LIMIT)
    began = time.monotonic()
    results = runner.map(call, range(6))
    assert LIMIT <= time.monotonic() - began < 5
    assert [*results[:2], results[3], results[5]] == [0, 1, 3, 5]
    assert isinstance(results[4], ConnectionError)
    timeout = results[2]
    assert isinstance(timeout, CallTimeoutError)
    assert "reward_timeout_seconds = 0.3" in str(timeout)
    assert f"in {hang.__name__}" in timeout.stack
    # The threads are as many as before.
    assert runner.map(lambda item: -item, range(20)) == [-item for item in range(20)]


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, CancelledError, PanicError])
def test_whatever_a_call_raises_is_its_result(raised: type[BaseException], threads: int):
    def call(item: int) -> int:
        if item == 2:
            raise raised("in the call")
        return item

    results = CallRunner(threads, 5).map(call, range(5))
    assert isinstance(results[2], raised)
    assert [*results[:2], *results[3:]] == [0, 1, 3, 4]


def test_a_request_to_stop_is_not_the_result_of_a_call():
    def call(item: int) -> None:
        raise InterruptedBeforeTraining

    with pytest.raises(InterruptedBeforeTraining):
        CallRunner(1, 5).map(call, range(2))


ENDS_THREADS = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def end_threads(idents: Iterable[int]) -> None:
    """Raise an exception in threads, as time limits do; it arrives when they run Python code."""
    for ident in idents:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(ident), ctypes.py_object(SystemExit)
        )


@ENDS_THREADS
def test_calls_outlive_the_threads_that_make_them():
    runner = CallRunner(2, 60)
    gate = threading.Barrier(2, timeout=60)

    def identify(_: int) -> int:
        gate.wait()
        return threading.get_ident()

    for _ in range(3):
        threads = runner.map(identify, range(2))
        time.sleep(0.1)  # until they wait for their next call
        end_threads(threads)
        assert runner.map(lambda item: -item, range(5)) == [0, -1, -2, -3, -4]
    assert runner.left_behind == 0


@ENDS_THREADS
def test_a_thread_that_ends_where_it_reports_its_result_holds_up_nobody():
    runner, held, results = CallRunner(2, 60), threading.Event(), []

    def end_where_it_reports(ident: int) -> None:
        with runner._changed:
            held.set()
            time.sleep(0.2)  # until the thread waits for the lock
            end_threads([ident])
            time.sleep(0.2)

    def call(item: int) -> int:
        if item == 1:
            arguments = (threading.get_ident(),)
            threading.Thread(target=end_where_it_reports, args=arguments).start()
            held.wait()
        return item

    def run() -> None:
        results.extend(runner.map(call, range(3)))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert (results[0], results[2]) == (0, 2)
    assert results[1] == 1 or isinstance(results[1], WorkerDiedError)
    assert runner.map(lambda item: -item, range(5)) == [0, -1, -2, -3, -4]


def test_one_thread_is_the_callers_thread():
    runner = CallRunner(1, LIMIT)
    threads = runner.map(lambda _: threading.current_thread(), range(3))
    assert set(threads) == {threading.main_thread()}


def test_calls_on_the_callers_thread_may_use_alarms_of_their_own():
    import signal

    def alarmed(_: Any) -> str:
        def ring(*_: Any) -> None:
            raise TimeoutError("own limit")

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            time.sleep(60)
        finally:
            signal.signal(signal.SIGALRM, before)
        return "never"

    [error] = CallRunner(1, 5).map(alarmed, [0])
    assert isinstance(error, TimeoutError)
    assert str(error) == "own limit"


def test_the_limit_is_that_of_a_call_and_not_of_its_wait_for_a_thread():
    for threads in (1, 2):
        runner = CallRunner(threads, LIMIT)
        assert runner.map(lambda item: time.sleep(LIMIT / 2) or item, range(6)) == list(range(6))


@pytest.mark.parametrize("threads", [1, 2])
def test_calls_that_only_hang_are_not_all_tried(threads: int):
    made = []

    def call(item: int) -> None:
        made.append(item)
        sleep(item)

    results = CallRunner(threads, 0.1).map(call, range(50))
    assert all(isinstance(result, CallTimeoutError) for result in results)
    assert 3 * threads <= len(made) < 4 * threads
    assert "was not called, because" in str(results[-1])


def test_threads_that_run_python_code_again_end_and_others_are_counted():
    go_on = threading.Event()

    def call(item: int) -> None:
        if item == 0:
            spin(item)
        go_on.wait()

    runner = CallRunner(2, LIMIT)
    runner.map(call, [0, 1])
    deadline = time.monotonic() + 10
    while runner.left_behind > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert runner.left_behind == 1
    go_on.set()
    while runner.left_behind and time.monotonic() < deadline:
        time.sleep(0.01)
    assert runner.left_behind == 0


def test_threads_end_with_their_runner():
    runner = CallRunner(3, LIMIT)
    runner.map(lambda item: time.sleep(0.05), range(3))
    threads = [thread for thread in threading.enumerate() if thread.name == "environment"]
    assert threads
    workers = list(runner._workers)
    del runner, threads
    deadline = time.monotonic() + 10
    while any(thread.is_alive() for thread in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(thread.is_alive() for thread in workers)
