"""Places in Kueue's queues: read seldom, and not needed."""

import asyncio

from flashrun.cluster_errors import ClusterError, NotFound
from flashrun.controller.queue_places import FRESH_SECONDS, QueuePlaces
from tests.controller.clocks import Clock


class Visibility:
    """Kueue's API of what waits, or a cluster without it."""

    def __init__(self, places: dict[str, int] | ClusterError) -> None:
        self.places, self.asked = places, 0

    async def queue_positions(self, namespace: str, queue: str) -> dict[str, int]:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.places, ClusterError):
            raise self.places
        return self.places


async def test_places_of_a_queue_are_read_once_for_all_runs_that_wait_in_it() -> None:
    clock, kueue = Clock(), Visibility({"job-a": 1, "job-b": 2})
    places = QueuePlaces(kueue, clock)  # type: ignore[arg-type]
    for _ in range(5):
        assert (await places.positions("team", "queue"))["job-b"] == 2
    assert kueue.asked == 1
    clock.now += FRESH_SECONDS
    kueue.places = {"job-b": 1}
    assert await places.positions("team", "queue") == {"job-b": 1}
    await places.positions("team", "other")
    assert kueue.asked == 3


async def test_a_cluster_that_serves_no_places_is_asked_seldom_and_nothing_fails() -> None:
    kueue = Visibility(NotFound("the API group does not exist"))
    places = QueuePlaces(kueue, Clock())  # type: ignore[arg-type]
    assert await places.positions("team", "queue") == {}
    assert await places.positions("team", "queue") == {}
    assert kueue.asked == 1
