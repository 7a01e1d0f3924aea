"""Commands that take longer than their storage keys are valid: the keys are read again in time."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.public import PublicPlatform
from flashrun.api.records import StorageAccess
from flashrun.cli.cluster import connection
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.cluster.renewed_access import RenewedAccess
from flashrun.cluster_errors import Unreachable
from flashrun.store import Store
from tests.store.small_s3 import SmallS3, small_s3

LIFETIME = 4.0
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Action": ["s3:PutObject"], "Resource": ["arn:aws:s3:::bucket/environments/*"]},
    ],
}


class ClusterWithSecret:
    """Stands in for the API server: its Secret has keys that an operator renews in time."""

    def __init__(self, s3: SmallS3) -> None:
        self._s3, self._issued, self._text = s3, 0.0, ""
        self.readings = 0
        self.away = False

    async def secret_value(self, namespace: str, name: str, key: str) -> str:
        assert key == names.ACCESS_KEY
        self.readings += 1
        if self.away:
            raise Unreachable("the API server is away")
        if time.monotonic() - self._issued > LIFETIME / 3:
            self._issued = time.monotonic()
            access = await asyncio.to_thread(Store(self._s3.access).assume, POLICY, 900)
            self._text = access.model_dump_json(exclude_none=True)
        return self._text


def write_for(seconds: float) -> Any:
    """Return a transfer that takes so long, in one call with one store."""

    def transfer(store: Store) -> int:
        ends, count = time.monotonic() + seconds, 0
        while time.monotonic() < ends:
            store.put_bytes(f"environments/file-{count}", b"1")
            count += 1
            time.sleep(0.05)
        return count

    return transfer


@pytest.mark.parametrize("way", ["with_store", "with_mirror"])
async def test_one_transfer_outlives_several_keys(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get_platform(_: ClusterSession) -> PublicPlatform:
        return PublicPlatform(models_namespace="flashrun-system")

    monkeypatch.setattr(connection.ClusterSession, "get_platform", get_platform)
    with small_s3() as s3:
        s3.lifetime = timedelta(seconds=LIFETIME)
        cluster: Any = ClusterWithSecret(s3)
        session = ClusterSession(cluster, "team-a")
        count = await getattr(session, way)(write_for(2.5 * LIFETIME))
        await session.close()
        assert (s3.expired, len(s3.objects)) == (0, count)
        assert len(s3.ends) >= 3
        readings = cluster.readings
        await asyncio.sleep(LIFETIME / 2)
        assert cluster.readings == readings  # a closed session reads nothing


async def test_while_the_api_server_is_away_the_keys_of_before_are_used() -> None:
    with small_s3() as s3:
        s3.lifetime = timedelta(seconds=3 * LIFETIME)
        cluster: Any = ClusterWithSecret(s3)
        session = ClusterSession(cluster, "team-a")
        await session.with_store(write_for(0.2))
        cluster.away = True
        await session.with_store(write_for(LIFETIME))
        await session.close()
        assert (s3.expired, len(s3.ends)) == (0, 1)


async def test_the_endpoint_of_a_port_forward_stays() -> None:
    first = StorageAccess(
        endpoint="http://minio.storage:9000", bucket="b", access_key="1", secret_key="s"
    )

    async def read() -> StorageAccess:
        return first.replace(access_key="2")

    access = RenewedAccess(first.replace(endpoint="http://127.0.0.1:5000", addressing="path"), read)
    await access.read_again()
    assert (access.now.access_key, access.now.endpoint) == ("2", "http://127.0.0.1:5000")
    assert access.now.addressing == "path"
