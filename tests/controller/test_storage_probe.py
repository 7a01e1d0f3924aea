"""The probe of storage at the start of the operator: no run starts where something is missing."""

import asyncio
import json
import time
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.platform import StorageSettings
from flashrun.api.public import FILE, PublicPlatform
from flashrun.controller.storage_probe import StartProbe
from flashrun.store import Store
from flashrun.store_errors import Unsuitable
from tests.controller.conftest import Operators
from tests.controller.stage import (
    World,
    platform,
    push_environment,
    wait_for_object,
    wait_for_phase,
)
from tests.servers import kubectl
from tests.store.small_s3 import Fault, small_s3

RUN = "flash-1-unsuitable"


@pytest.mark.api
async def test_no_run_starts_on_a_store_that_lacks_something_until_it_is_there(
    operators: Operators, world: World
) -> None:
    with small_s3(Fault.OVERWRITES) as s3:
        store = Store(s3.access)
        push_environment(store)
        operators.world.platform = platform(world.namespace, s3.access)
        pod = {"FLASHRUN_POD": "operator-0", "FLASHRUN_POD_UID": "uid-0"}
        process = operators.start(**pod)
        sentence = "(SmallS3/1.0) cannot be used: it overwrites an object in spite of If-None-Match"
        operators.wait(lambda: sentence in operators.ask(process, "/readyz")[1], 60)
        assert operators.ask(process, "/readyz")[0] == 503
        assert operators.ask(process, "/healthz")[0] == 200

        await world.submit(RUN)
        await waits_for_storage(world)
        assert await world.jobs(RUN) == []
        events = json.loads(kubectl(operators.kubeconfig, "get", "events", "-ojson"))["items"]
        assert [
            event["involvedObject"]["name"]
            for event in events
            if event["reason"] == "StorageUnsuitable" and s3.url in event["message"]
        ] == ["operator-0"]
        assert sentence in (await published_problem(world) or "")

        s3.faults = frozenset()
        await wait_for_phase(world, RUN, "Starting", 120)
        operators.wait(lambda: operators.ask(process, "/readyz")[0] == 200, 60)
        assert not [key for key in s3.objects if key.startswith(names.PROBE_PREFIX)]


async def published_problem(world: World) -> str | None:
    """Wait until the operator has published what people may know; return what storage lacks."""
    found = await wait_for_object(world, "ConfigMap", names.PUBLIC_CONFIG_MAP)
    return PublicPlatform.read(found["data"][FILE]).storage_problem


async def waits_for_storage(world: World) -> None:
    """Wait until the run's condition has the finding."""
    ends = time.monotonic() + 60
    while True:
        run = await world.cluster.get(names.KIND, world.namespace, RUN)
        conditions: list[Any] = run.get("status", {}).get("conditions", [])
        if any(
            item["reason"] == "StorageUnsuitable" and "overwrites an object" in item["message"]
            for item in conditions
        ):
            return
        assert time.monotonic() < ends, conditions
        await asyncio.sleep(0.2)


def settings(url: str, *, sts: bool) -> StorageSettings:
    return StorageSettings(endpoint=url, bucket="bucket", sts=sts)


def test_a_store_that_has_passed_is_not_tried_again() -> None:
    with small_s3() as s3:
        prove = StartProbe(Store(s3.access), settings(s3.url, sts=True), lambda: "uid")
        prove()
        s3.faults = frozenset({Fault.OVERWRITES})
        prove()


def test_a_store_without_sts_passes_when_the_settings_say_so() -> None:
    with small_s3(Fault.STS_405) as s3:
        store = Store(s3.access)
        with pytest.raises(Unsuitable, match=r"set storage[.]sts=false"):
            StartProbe(store, settings(s3.url, sts=True), lambda: "uid")()
        StartProbe(store, settings(s3.url, sts=False), lambda: "uid")()
