"""Credentials of an ``auth-provider`` of a kubeconfig, OpenID Connect above all.

Kubernetes replaced them by exec plugins, and its client still reads and renews them.
"""

from typing import Any

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.kube_config import KubeConfigLoader, KubeConfigMerger


class AuthProvider:
    """The credentials of one context, which the client renews when they have to be new."""

    def __init__(self, paths: str, context: str) -> None:
        """Read ``context`` of the kubeconfigs ``paths``; raises ``ValueError``."""
        try:
            self._loader: Any = KubeConfigLoader(
                KubeConfigMerger(paths).config, context, config_base_path=None
            )
        except ConfigException as error:
            raise ValueError(str(error)) from None
        self._configuration: Any = Configuration()

    async def authorization(self) -> str:
        """Return the header with credentials that are valid now; raises ``ValueError``."""
        try:
            await self._loader.load_and_set(self._configuration)
        except (ConfigException, aiohttp.ClientError) as error:
            raise ValueError(str(error)) from None
        return str(self._configuration.api_key.get("BearerToken", ""))
