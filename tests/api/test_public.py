"""What the platform publishes for everyone."""

import json

import pytest

from flashrun.api.catalog import Model
from flashrun.api.platform import Platform
from flashrun.api.public import PublicPlatform, PublicPool
from tests.api.test_platform import SETTINGS


def test_a_laptop_can_compute_where_a_run_would_go() -> None:
    pool = {"name": "x", "vram": 80, "gpusPerNode": 8, "maxNodes": 2, "gpusPerRun": 16, "cost": 3}
    platform = Platform.validate_manifest({**SETTINGS, "pools": [pool]})
    [published] = PublicPlatform.of(platform).to_manifest()["pools"]

    assert published == pool
    assert PublicPool.validate_manifest(published).gpus_per_run == 16


@pytest.mark.parametrize("key", ["models", "pools", "trainer", ""])
def test_keys_of_a_newer_operator_are_ignored_wherever_they_are(key: str) -> None:
    platform = Platform.validate_manifest({**SETTINGS, "pools": [{"name": "x", "vram": 80}]})
    told = PublicPlatform.of(platform)
    newer = json.loads(told.model_dump_json(by_alias=True))
    places = newer.get(key, newer)
    for place in places if isinstance(places, list) else [places]:
        place["ofANewerVersion"] = {"any": ["value"]}

    assert PublicPlatform.read(json.dumps(newer)) == told


def test_what_earlier_operators_publish_of_a_pool_and_of_pods_is_enough() -> None:
    earlier = {"pools": [{"name": "x", "vram": 80}], "trainer": {"image": "registry/trainer"}}
    told = PublicPlatform.read(json.dumps(earlier))

    assert told.pools[0].node_selector == {}
    assert told.trainer is not None
    assert told.trainer.proxies_with_credentials == {}


def test_a_mirrored_model_is_published_when_the_platform_serves_its_mirror() -> None:
    model = Model(id="acme/small", parameters=1)
    platform = Platform.validate_manifest({**SETTINGS, "modelsFromMirror": True})
    served = PublicPlatform.of(platform, mirrored=[model], refused_models={"acme/odd": "broken"})
    copy = PublicPlatform.read(served.model_dump_json(by_alias=True))

    assert copy.catalog().get("acme/small") == model
    assert copy.catalog().refusal("acme/odd") == "broken"
    assert [copy.needs_entry(name) for name in ("acme/small", "acme/new")] == [False, False]
    assert PublicPlatform.of(Platform.validate_manifest(SETTINGS)).needs_entry("acme/new")
