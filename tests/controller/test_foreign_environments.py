"""Environments of another team: no run gets them, and nobody but their owners changes them."""

from datetime import timedelta
from hashlib import sha256

import pytest

from flashrun.api import names
from flashrun.api.platform import EnvironmentSettings
from flashrun.api.public import PublicPlatform
from flashrun.api.records import EnvironmentPointer, StorageAccess
from flashrun.controller.publish import publish_in
from flashrun.controller.storage_access import AccessIssuer
from flashrun.store import Store
from flashrun.store_errors import StorageForbidden
from tests.controller.stage import World, now

pytestmark = pytest.mark.api
PUBLIC = PublicPlatform()
RUN, OTHER = "flash-1-0a1b2c3d", "flash-2-0a1b2c3d"


def push(store: Store, identifier: str, text: str) -> str:
    digest = sha256(text.encode()).hexdigest()
    store.put_bytes(names.environment_package_key(identifier, digest), text.encode())
    pointer = EnvironmentPointer(digest=digest, size=len(text), pushed=now())
    store.put_json(names.environment_latest_key(identifier), pointer)
    return digest


async def of_people(world: World) -> Store:
    """Publish in the namespace; return the storage that its people get."""
    issuer = AccessIssuer(world.store, world.platform.storage, lambda: world.store.access)
    await publish_in(world.cluster, issuer, world.platform, world.namespace, PUBLIC)
    text = await world.cluster.secret_value(
        world.namespace, names.STORAGE_USER_SECRET, names.ACCESS_KEY
    )
    return Store(StorageAccess.model_validate_json(text))


async def test_an_environment_of_another_team_is_neither_replaced_nor_used(world: World):
    theirs = "team-other/env"
    pushed = push(world.store, theirs, "their code")
    people = await of_people(world)
    for change in (
        lambda: push(people, theirs, "my code"),
        lambda: people.delete([names.environment_latest_key(theirs)]),
        lambda: people.get_json(names.environment_latest_key(theirs), EnvironmentPointer),
    ):
        with pytest.raises(StorageForbidden):
            change()
    pointer = world.store.get_json(names.environment_latest_key(theirs), EnvironmentPointer)
    assert pointer.digest == pushed

    await world.submit(RUN, environment={"id": theirs})
    run = await world.until(RUN, lambda run: run.status.pending, 5)
    assert run.status.pending.reason == "EnvironmentNotOwned"
    assert run.status.condition("Accepted").status == "False"
    assert await world.jobs(RUN) == []

    await world.submit(OTHER)
    await world.phase(OTHER, "Starting", 5)
    await (await world.trainer(OTHER)).succeed()
    await world.phase(OTHER, "Succeeded", 5)

    owners = {**world.platform.environments.owners, "team-other": (world.namespace,)}
    world.platform = world.platform.replace(environments=EnvironmentSettings(owners=owners))
    world.restart()
    await world.phase(RUN, "Starting", 15)


async def test_people_get_other_credentials_when_their_orgs_change(world: World):
    before = await of_people(world)
    assert (await of_people(world)).access == before.access
    owners = {**world.platform.environments.owners, "more": (world.namespace,)}
    world.platform = world.platform.replace(environments=EnvironmentSettings(owners=owners))
    after = await of_people(world)
    push(after, "more/env", "code")
    with pytest.raises(StorageForbidden):
        push(before, "more/env", "other code")
    assert after.access.expires is not None
    assert after.access.expires - now() > timedelta(minutes=10)
