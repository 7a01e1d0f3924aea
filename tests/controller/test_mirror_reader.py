"""The mirror as the operator reads it: on a real S3 server, with records that anybody wrote."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.catalog import BUILT_IN, Model
from flashrun.api.records import FileEntry, Manifest, ModelFacts
from flashrun.controller import mirror_reader, publish
from flashrun.controller.mirror_reader import MirrorReader
from flashrun.controller.storage_access import AccessIssuer
from flashrun.controller.upstreams import Upstreams
from flashrun.store import Store
from flashrun.store_errors import Corrupt
from tests.controller.stage import World, now, platform

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"
FACTS = {"parameters": 6, "context": 2048, "thinking": "none"}


def mirror(
    store: Store,
    model_id: str,
    revision: str = "1",
    created: datetime | None = None,
    **changes: Any,
) -> str:
    """Put a small model into the mirror, and return its prefix."""
    prefix = names.model_prefix(model_id, revision)
    files = {"config.json": b"{}", "model.safetensors": b"twelve bytes"}
    for name, content in files.items():
        store.put_bytes(prefix + name, content)
    record = Manifest.model_validate(
        {
            "kind": "model",
            "base_model": model_id,
            "model": FACTS,
            "created": created or now(),
            "files": [FileEntry(path=p, size=len(c), sha256="a" * 64) for p, c in files.items()],
            **changes,
        }
    )
    store.put_json(prefix + names.MANIFEST, record)
    return prefix


def reader(store: Store, *entries: Model, on: bool = True) -> MirrorReader:
    settings = platform("team", store.access)
    return MirrorReader(store, settings.replace(models=entries, models_from_mirror=on))


def test_without_the_setting_the_mirror_is_not_asked(store: Store) -> None:
    mirror(store, "off/small")
    off = reader(store, on=False)

    assert off.find("off/small") is None
    assert off.read_all() == ((), {})


def test_models_with_an_entry_in_the_catalog_are_never_taken_from_the_mirror(store: Store) -> None:
    """Else whoever may push could replace what all teams train."""
    entry = Model(id="entry/small", parameters=1)
    for model in (entry.id, BUILT_IN[0].id, "entry/other"):
        mirror(store, model)
    serving = reader(store, entry)

    assert [serving.find(model) for model in (entry.id, BUILT_IN[0].id)] == [None, None]
    ids = {model.id for model in serving.read_all().models}
    assert "entry/other" in ids
    assert not ids & {entry.id, BUILT_IN[0].id}


HOSTILE = {
    "no JSON": b"\xff{",
    "a list": b"[]",
    "nothing": b"",
    "longer than a record": b'{"kind": "' + b"a" * Manifest.max_bytes + b'"}',
    "deep": b"[" * 100_000,
    "many values": b'{"files": [' + b"0," * 10_000 + b"0]}",
    "no bounds": b'{"kind":"model","created":"2026-11-01T00:00:00Z","files":[],'
    b'"model":{"parameters":1e400,"context":1,"thinking":"none"}}',
    "years ahead": b'{"kind":"model","created":"2036-11-01T00:00:00Z","files":[]}',
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_manifest_costs_only_its_own_model(store: Store, content: bytes) -> None:
    prefix = mirror(store, "hostile/bad")
    mirror(store, "hostile/good")
    store.put_bytes(prefix + names.MANIFEST, content)
    serving = reader(store)
    models, refused = serving.read_all()

    assert "hostile/good" in {model.id for model in models}
    assert "hostile/bad" not in {model.id for model in models}
    assert refused["hostile/bad"].startswith("revision 1: its manifest cannot be read")
    assert len(refused["hostile/bad"]) <= 300
    answer = serving.find("hostile/bad")
    assert answer is not None
    assert answer.model is None


def test_keys_that_are_no_models_are_passed_over(store: Store) -> None:
    for key in ("stray.json", "a/b.json", "odd/na me/1/manifest.json", "odd/x/-1/manifest.json"):
        store.put_bytes(names.MODELS_PREFIX + key, b"{}")
    ids = {model.id for model in reader(store).read_all().models}
    refused = reader(store).read_all().refused

    assert not {model for model in (*ids, *refused) if model.startswith(("odd/", "a/", "stray"))}
    assert reader(store).find("../runs") is None


def test_a_push_that_is_not_complete_is_not_there(store: Store) -> None:
    mirror(store, "half/small", "1")
    store.put_bytes(names.model_prefix("half/small", "2") + "config.json", b"{}")
    answer = reader(store).find("half/small")

    assert answer is not None
    assert answer.model is not None
    assert answer.model.revision == "1"


def test_a_file_that_is_damaged_later_is_noticed(store: Store) -> None:
    prefix = mirror(store, "damaged/small")
    serving = reader(store)
    assert "damaged/small" not in serving.read_all().refused
    store.put_bytes(prefix + "model.safetensors", b"other")

    assert "have another size" in serving.read_all().refused["damaged/small"]


def test_more_keys_than_are_listed_are_a_problem(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror(store, "many/small")
    monkeypatch.setattr(mirror_reader, "KEYS_LIMIT", 2)
    with pytest.raises(Corrupt, match="more than 2 keys below models/"):
        reader(store).read_all()


async def test_a_run_of_a_mirrored_model_starts_with_its_newest_revision(world: World) -> None:
    mirror(world.store, "served/small", "1")
    world = replace(world, platform=world.platform.replace(models_from_mirror=True))
    await world.submit(RUN, model="served/small")
    run = await world.phase(RUN, "Starting")
    assert run.status.resolved is not None
    assert (run.status.resolved.model_source, run.status.resolved.model_revision) == ("mirror", "1")

    trainer = await world.trainer(RUN)
    prefix = names.model_prefix("served/small", "1")
    assert trainer.store.exists(prefix + names.MANIFEST)  # its pod may download it


async def test_a_run_is_refused_by_name_when_the_mirror_is_not_served_or_its_record_is_broken(
    world: World,
) -> None:
    prefix = mirror(world.store, "refused/small")
    await world.submit(RUN, model="refused/small")
    off = await world.phase(RUN, "Failed")
    assert off.status.failure is not None
    assert "'refused/small' is not in the catalog" in off.status.failure.message

    world = replace(world, platform=world.platform.replace(models_from_mirror=True))
    world.store.put_bytes(prefix + names.MANIFEST, b"{}")
    await world.submit("flash-2-0a1b2c3d", model="refused/small")
    on = await world.phase("flash-2-0a1b2c3d", "Failed")
    assert on.status.failure is not None
    assert "'refused/small' is in the mirror, but cannot be used" in on.status.failure.message


async def test_what_is_published_names_mirrored_models_and_those_that_are_refused(
    world: World, tmp_path: Path
) -> None:
    mirror(world.store, "published/small")
    mirror(world.store, "published/old", model=None)
    settings = world.platform.replace(models_from_mirror=True)
    content = MirrorReader(world.store, settings).read_all()
    public = await publish.describe_platform(world.cluster, settings, now(), content)

    assert public.catalog().get("published/small") is not None
    assert "published/small" in (public.mirrored_ids or ())
    assert "push it again" in public.catalog().refusal("published/old")
    assert not public.needs_entry("published/small")
    assert public.needs_entry(BUILT_IN[0].id)
    off = await publish.describe_platform(world.cluster, world.platform, now())
    assert off.needs_entry("published/small")


async def test_storage_that_fails_later_leaves_the_published_models_as_they_were(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mirror(world.store, "kept/small")
    settings = world.platform.replace(models_from_mirror=True)
    serving, seen = MirrorReader(world.store, settings), list[bool]()
    enough = asyncio.Event()

    def read_all() -> mirror_reader.MirrorContent:
        if seen:
            raise Corrupt("storage is away")
        return MirrorReader.read_all(serving)

    async def look(
        cluster: object, issuer: object, platform: object, namespace: str, public: Any
    ) -> None:
        seen.append(public.catalog().get("kept/small") is not None)
        if len(seen) == 3:
            enough.set()

    monkeypatch.setattr(serving, "read_all", read_all)
    monkeypatch.setattr(publish, "publish_in", look)
    monkeypatch.setattr(publish, "EVERY_SECONDS", 0.01)
    upstreams = Upstreams(settings.trainer, tmp_path)
    issuer = AccessIssuer(world.store, settings.storage, lambda: world.store.access)
    task = asyncio.create_task(
        publish.publish(
            *(world.cluster, issuer, settings, upstreams, serving),
            lambda: settings.namespaces,
            str,
        )
    )
    await asyncio.wait_for(enough.wait(), 30)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert all(seen)


def test_the_facts_of_a_push_have_the_names_that_the_operator_reads() -> None:
    assert set(ModelFacts.model_fields) == set(FACTS)
