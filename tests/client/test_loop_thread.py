"""An event loop in a thread of its own."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from flashrun.client.loop_thread import LoopStopped, LoopThread


async def nothing() -> None:
    pass


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    found = LoopThread()
    yield found
    found.stop(nothing())


def test_a_call_returns_its_answer_or_raises_its_error(loop: LoopThread) -> None:
    async def answer() -> int:
        return 7

    async def fail() -> None:
        raise ValueError("no")

    assert loop.run(answer()) == 7
    with pytest.raises(ValueError, match="no"):
        loop.run(fail())


async def test_a_call_may_wait_inside_a_running_loop_as_in_a_notebook(loop: LoopThread) -> None:
    async def answer() -> int:
        await asyncio.sleep(0.01)
        return 7

    assert loop.run(answer()) == 7


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell that runs tests in the background makes its children ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_cancels_the_call(loop: LoopThread) -> None:
    cancelled = threading.Event()

    async def wait() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(KeyboardInterrupt):
        loop.run(wait())
    assert cancelled.wait(10)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_until_the_call_has_put_its_things_in_order(loop: LoopThread) -> None:
    """A program that ends with the interrupt would otherwise leave half of them."""
    cleaned = []

    async def wait() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.3)
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        loop.run(wait())
    assert cleaned == [True]


@pytest.mark.usefixtures("interruptible")
def test_a_call_that_is_interrupted_before_it_has_begun_never_begins(loop: LoopThread) -> None:
    begun = []

    async def begin() -> None:
        begun.append(True)

    loop._loop.call_soon_threadsafe(time.sleep, 1.0)
    main = threading.main_thread().ident or 0
    threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        loop.run(begin())

    loop.run(nothing())
    assert begun == []


def test_stopping_runs_the_last_call_and_ends_what_still_runs() -> None:
    loop, ended = LoopThread(), []

    async def serve() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("serve")

    async def start() -> None:
        loop.served = asyncio.create_task(serve())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    async def last() -> None:
        ended.append("last")

    loop.run(start())
    loop.stop(last())
    loop.stop(last())

    assert ended == ["last", "serve"]
    with pytest.raises(LoopStopped, match="was stopped"):
        loop.run(nothing())


def test_a_call_that_waits_in_another_thread_is_told_that_the_loop_was_stopped() -> None:
    loop, waits = LoopThread(), threading.Event()
    raised: list[BaseException] = []

    async def wait() -> None:
        waits.set()
        await asyncio.sleep(60)

    def call() -> None:
        try:
            loop.run(wait())
        except BaseException as error:
            raised.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert waits.wait(10)
    loop.stop(nothing())
    caller.join(10)

    assert [type(error) for error in raised] == [LoopStopped]


def test_a_call_of_the_moment_in_which_the_loop_is_stopped_does_not_wait_for_ever() -> None:
    loop, answered = LoopThread(), threading.Event()

    def call() -> None:
        with pytest.raises(LoopStopped):
            loop.run(nothing())
        answered.set()

    with loop._lock:  # the caller has seen a loop that is alive, and comes too late
        caller = threading.Thread(target=call)
        caller.start()
        time.sleep(0.2)
        loop.stop(nothing())
    caller.join(10)

    assert answered.is_set()


def test_the_loop_can_be_stopped_from_inside_itself() -> None:
    """The collector of garbage may run there."""
    loop = LoopThread()

    async def stop() -> None:
        loop.stop(nothing())

    loop.run(stop())


def test_a_loop_that_is_stopped_when_the_program_ends_prints_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From Python 3.12 on no thread can be started then, in which a loop ends its executor."""
    printed: list[object] = []
    loop = LoopThread()

    async def refuse(_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(asyncio.BaseEventLoop, "shutdown_default_executor", refuse)
    monkeypatch.setattr(threading, "excepthook", printed.append)
    loop.stop(nothing())

    assert printed == []
    assert loop._loop.is_closed()
