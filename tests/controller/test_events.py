"""Kubernetes Events: one per run and reason, updated, and never in the way of a run."""

from datetime import UTC, datetime
from typing import Any

from flashrun.api import names
from flashrun.api.resource import FlashRun
from flashrun.cluster_errors import AlreadyExists, Forbidden
from flashrun.controller import events
from flashrun.plan.types import RunEvent
from tests.controller.stage import flash_run

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class EventApi:
    """Stands in for the cluster: it stores Events."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.forbidden = False

    async def create(self, manifest: dict[str, Any]) -> None:
        if self.forbidden:
            raise Forbidden("you may not create events")
        name = manifest["metadata"]["name"]
        if name in self.stored:
            raise AlreadyExists(f"{name} exists already")
        self.stored[name] = dict(manifest)

    async def patch(self, kind: str, namespace: str, name: str, body: dict[str, Any]) -> None:
        assert (kind, namespace) == ("Event", "team")
        self.stored[name] |= body


def run() -> FlashRun:
    manifest = flash_run("team", "flash-1-aa")
    manifest["metadata"] |= {"uid": "uid", "generation": 1}
    return FlashRun.from_manifest(manifest)


async def post(api: EventApi, reason: str, message: str, warning: bool = False) -> None:
    cluster: Any = api
    event: Any = RunEvent(reason=reason, message=message, warning=warning)  # type: ignore[arg-type]
    await events.post(cluster, events.Subject.of(run()), event, NOW)


async def test_an_event_names_its_run_and_says_what_happened() -> None:
    api = EventApi()
    await post(api, "Started", "The Job was created.")
    [event] = api.stored.values()
    assert event["involvedObject"]["uid"] == "uid"
    assert event["involvedObject"]["kind"] == names.KIND
    assert (event["type"], event["reason"]) == ("Normal", "Started")
    assert event["message"] == "The Job was created."
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-01-02T03:04:05Z"


async def test_a_reason_has_one_event_which_is_updated() -> None:
    api = EventApi()
    await post(api, "Retrying", "first", warning=True)
    await post(api, "Retrying", "second", warning=True)
    await post(api, "Failed", "third", warning=True)
    assert sorted(event["message"] for event in api.stored.values()) == ["second", "third"]
    assert {event["type"] for event in api.stored.values()} == {"Warning"}


async def test_a_long_message_is_cut_to_what_an_event_may_hold() -> None:
    api = EventApi()
    await post(api, "Failed", "x" * 5000)
    [event] = api.stored.values()
    assert event["message"] == "x" * 1024


async def test_an_event_that_cannot_be_posted_does_not_end_the_pass() -> None:
    api = EventApi()
    api.forbidden = True
    await post(api, "Failed", "x")
    assert api.stored == {}
