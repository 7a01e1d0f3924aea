"""Both clients of the cluster module: that of the operator, and that of short commands."""

from functools import partial

import pytest

from flashrun.cluster import Cluster


@pytest.fixture(params=[False, True], ids=["aiohttp", "urllib3"])
def _each_client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test once with each client."""
    monkeypatch.setattr(Cluster, "login", partial(Cluster.login, quick=request.param))
