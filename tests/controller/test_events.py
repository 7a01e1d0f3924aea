"""Kubernetes Events: one per run and reason, updated, and never in the way of a run."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

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


def poster(api: EventApi, leading: bool = True) -> events.EventPoster:
    cluster: Any = api
    return events.EventPoster(cluster, lambda: leading)


def subject(namespace: str = "team", name: str = "flash-1-aa") -> events.Subject:
    return events.Subject(names.API_VERSION, names.KIND, namespace, name, f"{name}-uid")


def event_of(reason: str, message: str = "It happened.") -> Any:
    return RunEvent(reason=reason, message=message)  # type: ignore[arg-type]


async def test_nobody_waits_for_an_event_that_is_posted_later() -> None:
    class HangingApi(EventApi):
        async def create(self, manifest: dict[str, Any]) -> None:
            await asyncio.Event().wait()

    own = poster(HangingApi())
    running = asyncio.create_task(own.run())
    for number in range(3):
        own.add(subject(name=f"flash-{number}"), event_of("Started"), NOW)
        await asyncio.sleep(0)
    running.cancel()


async def test_events_that_hang_are_given_up_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowApi(EventApi):
        async def create(self, manifest: dict[str, Any]) -> None:
            if manifest["reason"] == "Hangs":
                await asyncio.Event().wait()
            await super().create(manifest)

    monkeypatch.setattr(events, "POST_SECONDS", 0.05)
    api = SlowApi()
    own = poster(api)
    own.add(subject(), event_of("Hangs"), NOW)
    own.add(subject(), event_of("Started"), NOW)
    await own.drain()
    assert [item["reason"] for item in api.stored.values()] == ["Started"]


async def test_events_that_wait_are_bounded_and_namespaces_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "WAITING_LIMIT", 3)
    posted: list[tuple[str, str]] = []

    async def note(_: Any, about: events.Subject, event: RunEvent, __: datetime) -> None:
        posted.append((about.namespace, event.message))

    monkeypatch.setattr(events, "post", note)
    own = poster(EventApi())
    for number in range(10):
        own.add(subject("flood"), event_of(f"Reason{number}", str(number)), NOW)
    own.add(subject("flood"), event_of("Reason9", "again"), NOW)
    own.add(subject("team"), event_of("Started", "theirs"), NOW)
    await own.drain()
    expected = [("flood", "7"), ("team", "theirs"), ("flood", "8"), ("flood", "again")]
    assert posted == expected


async def test_a_replica_that_does_not_lead_posts_nothing() -> None:
    api = EventApi()
    own = poster(api, leading=False)
    own.add(subject(), event_of("Started"), NOW)
    await own.drain()
    assert not api.stored
