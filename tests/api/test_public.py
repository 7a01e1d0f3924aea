"""What the platform publishes for everyone."""

from flashrun.api.catalog import Model
from flashrun.api.platform import Platform
from flashrun.api.public import PublicPlatform, PublicPool
from tests.api.test_platform import SETTINGS


def test_a_laptop_can_compute_where_a_run_would_go() -> None:
    pool = {"name": "x", "vram": 80, "gpusPerNode": 8, "maxNodes": 2, "gpusPerRun": 16, "cost": 3}
    platform = Platform.validate_manifest({**SETTINGS, "pools": [pool]})
    [published] = PublicPlatform.of(platform).to_manifest()["pools"]

    assert published == pool
    newer = published | {"interconnect": "of a newer version"}
    assert PublicPool.validate_manifest(newer).gpus_per_run == 16


def test_a_mirrored_model_is_published_when_the_platform_serves_its_mirror() -> None:
    model = Model(id="acme/small", parameters=1)
    platform = Platform.validate_manifest({**SETTINGS, "modelsFromMirror": True})
    served = PublicPlatform.of(platform, mirrored=[model], refused_models={"acme/odd": "broken"})
    copy = PublicPlatform.model_validate_json(served.model_dump_json(by_alias=True))

    assert copy.catalog().get("acme/small") == model
    assert copy.catalog().refusal("acme/odd") == "broken"
    assert [copy.needs_entry(name) for name in ("acme/small", "acme/new")] == [False, False]
    assert PublicPlatform.of(Platform.validate_manifest(SETTINGS)).needs_entry("acme/new")
