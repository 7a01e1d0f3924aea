"""Renewal of storage credentials that fails, and secrets that go away while a run trains.

They cost their run one condition: the rest of the pass goes on, and so do other runs.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.resource import FlashRun
from flashrun.store import Store
from flashrun.store_errors import StoreError, Unavailable
from tests.controller.stage import ENVIRONMENT, Trainer, World
from tests.controller.test_reconcile import secret

pytestmark = pytest.mark.api
RUN, OTHER, NEW = "flash-1-0a1b2c3d", "flash-2-0a1b2c3d", "flash-3-0a1b2c3d"
HALF_LIFE = timedelta(hours=7)


@pytest.fixture
def storage_refuses(monkeypatch: pytest.MonkeyPatch) -> Callable[[StoreError | None], None]:
    """Let the store issue no credentials, or issue them again."""
    assume = Store.assume

    def refuse(error: StoreError | None) -> None:
        def answer(self: Store, *words: Any) -> Any:
            if error is not None:
                raise error
            return assume(self, *words)

        monkeypatch.setattr(Store, "assume", answer)

    return refuse


async def training(world: World, name: str, **changes: Any) -> Trainer:
    await world.submit(name, **changes)
    await world.phase(name, "Starting")
    trainer = await world.trainer(name)
    trainer.beat(1)
    await world.phase(name, "Running")
    return trainer


def access(run: FlashRun) -> tuple[str, str]:
    """Status and message of the condition about the run's storage credentials."""
    condition = run.status.condition("StorageAccess")
    return (condition.status, condition.message) if condition else ("", "")


def step(number: int) -> Callable[[FlashRun], bool]:
    return lambda run: run.status.progress is not None and run.status.progress.step == number


async def test_while_sts_is_away_status_is_written_and_runs_end(
    world: World, storage_refuses: Callable[[StoreError | None], None]
):
    trainer, other = await training(world, RUN), await training(world, OTHER)
    storage_refuses(Unavailable("sts.example does not answer"))
    world.ahead, world.passing = HALF_LIFE, False
    trainer.beat(5)
    run = await world.until(RUN, step(5), 5)
    assert run.status.phase == "Running"
    assert access(run)[0] == "False"
    assert "cannot be renewed; the present ones expire at" in access(run)[1]
    assert "sts.example does not answer" in access(run)[1]

    await other.succeed()
    await world.phase(OTHER, "Succeeded", 5)
    await world.submit(NEW)
    run = await world.until(NEW, lambda run: run.status.pending, 5)
    assert run.status.pending.reason == "StorageUnavailable"
    assert await world.jobs(NEW) == []

    storage_refuses(None)
    world.restart()
    run = await world.until(RUN, lambda run: access(run)[0] == "True", 5)
    await world.phase(NEW, "Starting", 5)
    await trainer.succeed()
    await world.phase(RUN, "Succeeded", 5)


async def test_a_run_whose_secrets_are_deleted_goes_on_and_gets_new_credentials(world: World):
    await world.cluster.create(secret(world.namespace, "keys", SERVICE_API_KEY="value"))
    listed = {"id": ENVIRONMENT, "secrets": ["SERVICE_API_KEY"]}
    trainer = await training(world, RUN, environment=listed, secretRefs=[{"name": "keys"}])
    uid = (await world.run(RUN)).uid
    for name in ("keys", names.secrets_name(RUN, uid)):
        await world.cluster.delete("Secret", world.namespace, name)
    keys = (world.namespace, names.storage_secret_name(RUN, uid), names.ACCESS_KEY)
    before = await world.cluster.secret_value(*keys)
    world.ahead, world.passing = HALF_LIFE, False
    trainer.beat(5)
    run = await world.until(RUN, step(5), 5)
    assert (run.status.phase, run.status.pending) == ("Running", None)
    assert run.status.condition("SecretsReady").status == "False"
    assert await world.cluster.secret_value(*keys) != before

    await world.cluster.create(secret(world.namespace, "keys", SERVICE_API_KEY="value"))
    await world.until(RUN, lambda run: run.status.condition("SecretsReady").status == "True", 5)
    await trainer.succeed()
    await world.phase(RUN, "Succeeded", 5)


async def test_the_credentials_of_a_run_that_has_ended_are_not_renewed(world: World):
    trainer = await training(world, RUN)
    assert trainer.store.access.expires is not None
    lifetime = trainer.store.access.expires - datetime.now(UTC)
    assert lifetime <= timedelta(seconds=world.platform.storage.credentials_seconds)
    assert world.platform.storage.credentials_seconds <= 3600
    await trainer.succeed()
    await world.phase(RUN, "Succeeded", 5)
    keys = (world.namespace, names.storage_secret_name(RUN, trainer.run.uid), names.ACCESS_KEY)
    before = await world.cluster.secret_value(*keys)
    world.ahead, world.passing = HALF_LIFE, False
    for _ in range(2):
        await world.pass_over(RUN)
        world.restart()
    assert await world.cluster.secret_value(*keys) == before
    await world.cluster.delete("Secret", *keys[:2])
    await world.pass_over(RUN)
    assert await world.cluster.metadata("Secret", *keys[:2]) is None
