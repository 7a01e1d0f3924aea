"""The connection to a cluster: its errors are sentences."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashrun.api.records import StorageAccess
from flashrun.cli.cluster.connection import ClusterSession, listed_run
from flashrun.cli.output.formatting import runs_table
from tests.cli.shell import Served, Shell


def test_a_cluster_that_does_not_answer_is_one_sentence(served: Served, tmp_path: Path) -> None:
    config = yaml.safe_load(Path(served.flash.environment["KUBECONFIG"]).read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    broken = tmp_path / "broken"
    broken.write_text(yaml.safe_dump(config))

    done = Shell(tmp_path, broken)("runs")

    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


class SecretReader:
    """Stands in for the cluster: it has storage credentials that expire after some minutes."""

    def __init__(self, minutes: float) -> None:
        self.minutes, self.reads = minutes, 0

    async def secret_value(self, namespace: str, name: str, key: str) -> str:
        self.reads += 1
        access = StorageAccess(
            endpoint="http://127.0.0.1:1",
            bucket="bucket",
            access_key=f"key-{self.reads}",
            secret_key="hush",
            expires=datetime.now(UTC) + timedelta(minutes=self.minutes),
        )
        return access.model_dump_json()


@pytest.mark.parametrize(
    ("minutes", "keys"), [(30, ["key-1"] * 3), (2, ["key-1", "key-2", "key-3"])]
)
async def test_credentials_that_expire_soon_are_read_again(minutes: float, keys: list[str]) -> None:
    reader: Any = SecretReader(minutes)
    session = ClusterSession(reader, "team-a")
    assert [(await session.open_store()).access.access_key for _ in keys] == keys
    await session.close()


def test_a_run_that_this_version_cannot_read_is_listed_with_its_phase() -> None:
    manifest = {
        "metadata": {
            "name": "old",
            "namespace": "team-a",
            "creationTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": {"model": "org/model", "algorithm": "grpo", "newTable": {}},
        "status": {"phase": "Succeeded"},
    }
    run = listed_run(manifest)
    now = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
    [row] = runs_table([run], now).rows
    assert [cell.text for cell in row][:2] == ["old", "Succeeded"]
    assert {"grpo", "org/model"} <= {cell.text for cell in row}
