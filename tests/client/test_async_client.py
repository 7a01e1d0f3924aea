"""The client of programs with an event loop."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from flashrun import AsyncClient
from flashrun.client import DoesNotExist, InvalidRequest
from tests.cli.shell import Served
from tests.client.played_run import succeed, train


@pytest.fixture
async def client(served: Served) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(kubeconfig=served.flash.kubeconfig) as found:
        yield found


async def test_a_run_is_followed_beside_other_calls(served: Served, client: AsyncClient) -> None:
    served.push()
    run = await client.submit("config.toml")
    waiting = asyncio.create_task(run.wait())
    phases = []
    async for state in run.follow():
        phases.append(str(state.phase))
        act = {"Pending": train, "Running": succeed}.get(state.phase)
        if act is not None:
            await asyncio.to_thread(act, served, run.name)

    assert phases == ["Pending", "Running", "Succeeded"]
    assert await waiting == await run.status()
    assert [item.name for item in await client.runs()] == [run.name]
    assert list((await run.metrics("loss")).index) == [5, 10]
    assert [item.step for item in await run.checkpoints()] == [5, 10]
    assert (await run.pull(best=True)).name == f"{run.name}-step-5"
    assert (await run.cancel()).succeeded


async def test_calls_at_the_same_time_share_one_connection(client: AsyncClient) -> None:
    first, second = await asyncio.gather(client._connected(), client._connected())

    assert first is second


async def test_a_closed_client_connects_again(client: AsyncClient) -> None:
    assert await client.runs() == []
    await client.close()
    assert await client.runs() == []


async def test_its_errors_are_those_of_the_other_client(client: AsyncClient) -> None:
    with pytest.raises(DoesNotExist, match="there is no run flash-1-a"):
        await client.run("flash-1-a").wait()
    with pytest.raises(InvalidRequest, match="is a checkpoint, not a run"):
        client.run("flash-1-a/step-5")


async def test_a_limit_of_time_ends_following_and_leaves_the_run_running(
    served: Served, client: AsyncClient
) -> None:
    served.push()
    run = await client.submit("config.toml")
    states = []

    async def follow() -> None:
        async for state in run.follow():
            states.append(state)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(follow(), 3.5)

    assert [str(state.phase) for state in states] == ["Pending"]  # as nothing has changed
    assert (await run.status()).phase == "Pending"
