"""The threads for S3: a store that hangs occupies them, and nothing else."""

import asyncio
import threading

import pytest

from flashrun.controller.storage_threads import THREADS, call_heartbeats, call_storage


async def test_the_result_and_the_error_of_a_call_come_back() -> None:
    def divide(a: int, *, by: int) -> float:
        return a / by

    assert await call_storage(divide, 6, by=3) == 2
    with pytest.raises(ZeroDivisionError):
        await call_heartbeats(divide, 6, by=0)


async def test_a_store_that_hangs_leaves_heartbeats_and_other_threads_alone() -> None:
    answer = threading.Event()
    waiting = [asyncio.create_task(call_storage(answer.wait)) for _ in range(THREADS)]
    await asyncio.sleep(0.05)
    try:
        one_more = asyncio.create_task(call_storage(threading.current_thread))
        heartbeats = await asyncio.wait_for(call_heartbeats(threading.current_thread), 5)
        other = await asyncio.wait_for(asyncio.to_thread(threading.current_thread), 5)
        assert not one_more.done()
    finally:
        answer.set()
    assert heartbeats.name.startswith("heartbeats")
    assert not other.name.startswith(("heartbeats", "storage"))
    assert (await one_more).name.startswith("storage")
    assert await asyncio.gather(*waiting) == [True] * THREADS
