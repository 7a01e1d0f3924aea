"""The chart as real helm renders it."""

import subprocess
from pathlib import Path

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "flashrun"
NEEDED = {
    "operator": {"image": "registry.example/operator@sha256:1"},
    "trainer": {"image": "registry.example/trainer@sha256:2"},
    "storage": {"endpoint": "http://s3.example:9000", "accessKey": "key", "secretKey": "hush"},
}


@pytest.fixture
def render(helm: Path, tmp_path: Path):
    def run(changes: dict | None = None) -> list[dict]:
        given = tmp_path / "values.yaml"
        given.write_text(yaml.safe_dump(_merged(NEEDED, changes or {})))
        command = [helm, "template", "flashrun", CHART, "--kube-version", "1.34.4"]
        command += ["--namespace", "flashrun-system", "--values", given]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ValueError(done.stderr)
        return [item for item in yaml.safe_load_all(done.stdout) if item]

    return run


def _merged(base: dict, over: dict) -> dict:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
