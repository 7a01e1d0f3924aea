"""Which endpoints need a port-forward; forwarding itself is tried with real pods."""

from typing import Any

import pytest

from flashrun.api.records import StorageAccess
from flashrun.port_forward import forwarded_endpoint

REACHABLE = ["https://s3.example.com", "http://10.0.0.1:9000", "http://localhost:9000"]


@pytest.mark.parametrize("endpoint", REACHABLE)
async def test_an_endpoint_outside_the_cluster_stays_as_it_is(endpoint: str) -> None:
    access = StorageAccess(
        endpoint=endpoint, bucket="b", access_key="a", secret_key="s", addressing="virtual"
    )
    nobody: Any = None
    async with forwarded_endpoint(nobody, access) as reachable:
        assert reachable is access
