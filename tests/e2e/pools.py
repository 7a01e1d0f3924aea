"""Pools and models that only tests have, so that a run can be one of several processes.

Every model but one is the same tiny one; how much GPU memory it asks for decides where it goes.
"""

from typing import Any

from localcluster import chart, real_model

PAIR = "flashrun/tiny-pair"
"""Fits into one GPU of the pool whose runs get two: two processes in one pod."""
SPREAD = "flashrun/tiny-spread"
"""Fits into no GPU that is left, so that its weights are spread over two."""
NODES = "flashrun/tiny-nodes"
"""Fits into the GPUs of nodes that have one each: two pods."""
CRAMPED = "flashrun/tiny-cramped"
"""Goes to a pool whose main memory is too small for any training, unless that is known."""
LITTLE_DISK = "flashrun/tiny-little-disk"
"""Goes to a pool whose pods may use less local disk than a run needs."""
REAL = real_model.catalog_entry() | {"vramSft": 90, "vramGrpo": 90}
"""The entry of a real model, in the pool whose pods have memory for it."""
MODELS = (chart.MODEL, PAIR, SPREAD, NODES, CRAMPED, LITTLE_DISK)

_SMALL = {"cpu": "100m", "memory": "2Gi"}
VALUES: dict[str, Any] = {
    "environments": {"owners": {"examples": [chart.RUNS], "broken": [chart.RUNS]}},
    "pools": [
        {"name": "local", "vram": 80, **_SMALL},
        {"name": "real", "vram": 95, "cpu": "100m", "memory": "4Gi"},
        {"name": "pair", "vram": 160, "gpusPerNode": 2, "gpusPerRun": 2, "cost": 2, **_SMALL},
        {"name": "nodes", "vram": 400, "maxNodes": 2, "gpusPerRun": 2, "cost": 4, **_SMALL},
        {"name": "cramped", "vram": 900, "cost": 80, **_SMALL, "memory": "300Mi"},
        {"name": "roomy", "vram": 950, "cost": 90, **_SMALL},
        {"name": "little-disk", "vram": 1000, "cost": 100, **_SMALL, "ephemeralStorage": "64Ki"},
    ],
    "models": [
        chart.catalog_entry(chart.MODEL),
        REAL,
        chart.catalog_entry(PAIR, vramSft=100, vramGrpo=100),
        chart.catalog_entry(SPREAD, vramSft=200, vramGrpo=200),
        chart.catalog_entry(NODES, vramSft=330, vramGrpo=330),
        chart.catalog_entry(CRAMPED, vramSft=850, vramGrpo=850),
        chart.catalog_entry(LITTLE_DISK, vramSft=980, vramGrpo=980),
    ],
}
"""Values of the chart; the local node's GPUs serve all pools, and tests have an org."""
