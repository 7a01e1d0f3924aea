"""The golden runs as the command line reads them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from flashrun.api.resource import FlashRun

RUNS = Path(__file__).parents[1] / "runs"


NOW = datetime(2026, 11, 23, tzinfo=UTC)


def golden_run(stage: str, name: str = "sums-grpo", **changes: Any) -> FlashRun:
    """Return a golden run as it is at ``stage``."""
    manifest = yaml.safe_load((RUNS / name / "flashrun.yaml").read_text())
    status = yaml.safe_load((RUNS / name / f"status-{stage}.yaml").read_text())
    return FlashRun.from_manifest({**manifest, "status": {**status, **changes}})
