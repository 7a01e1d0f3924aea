"""OpenID Connect tokens of a kubeconfig, which the kubernetes client reads and renews."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from flashrun.cluster_errors import NoCluster
from flashrun.kubeconfig import Kubeconfig
from tests.cluster.test_kubeconfig import write_config


def token(**claims: Any) -> str:
    body = base64.b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"head.{body}.signature"


def provider(**config: str) -> dict[str, Any]:
    return {"auth-provider": {"name": "oidc", "config": config}}


async def test_the_token_of_a_provider_is_used(tmp_path: Path) -> None:
    held = token(sub="jane")
    config = write_config(tmp_path / "c", "http://x", provider(**{"id-token": held}))
    login = await Kubeconfig.load(str(config))

    assert login.connection.token == held
    assert await login.renew()
    assert login.connection.token == held


@pytest.mark.parametrize(
    ("config", "sentence"),
    [({"id-token": token(exp=1)}, "refresh"), ({"id-token": "x"}, "JWT"), ({}, "refresh")],
)
async def test_a_token_that_cannot_be_renewed_is_a_sentence(
    tmp_path: Path, config: dict[str, str], sentence: str
) -> None:
    path = write_config(tmp_path / "c", "http://x", provider(**config))
    with pytest.raises(NoCluster, match=f"the kubeconfig cannot be used .*{sentence}"):
        await Kubeconfig.load(str(path))
