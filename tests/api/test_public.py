"""What the platform publishes for everyone."""

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
