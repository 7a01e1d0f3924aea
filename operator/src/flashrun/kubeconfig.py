"""The user's kubeconfig: which context holds, and credentials that are renewed when they end.

The client reads most of a kubeconfig. What it reads otherwise than kubectl is read here: the
current context of several files, the later tokens of exec plugins and token files, and the user
to impersonate (``as``).
"""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import Configuration
from kubernetes.aio.config.exec_provider import ExecProvider
from kubernetes.aio.config.kube_config import (
    KUBE_CONFIG_DEFAULT_LOCATION,
    ConfigNode,
    FileOrData,
    KubeConfigLoader,
    KubeConfigMerger,
)

from flashrun.api.times import parse_time
from flashrun.cluster_errors import NoCluster
from flashrun.cluster_requests import one_line

DEFAULT_LOCATION: Final = str(KUBE_CONFIG_DEFAULT_LOCATION)

_LEEWAY: Final = timedelta(seconds=2)
"""A token is renewed this long before it ends, so that it is valid when the server reads it."""
_PROVIDER_SECONDS: Final = 10.0
"""How often an OpenID Connect token is looked at; the client knows whether it has to be new."""
_ERRORS: Final = (
    config.ConfigException,
    yaml.YAMLError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)
"""What the client raises for a malformed kubeconfig or a plugin that fails."""


class Kubeconfig:
    """One context of the user's kubeconfig files, logged in."""

    def __init__(self, loader: Any, user: "_User") -> None:
        context = loader.current_context
        self.configuration: Any = Configuration()
        self.context: str = context["name"]
        self.namespace: str = context["context"].get("namespace") or "default"
        self.impersonation = user.impersonation
        """Headers that name the user to impersonate."""
        self._loader = loader
        self._user = user
        self._plugin_ends: datetime | None = None
        self._provider_read_at = 0.0

    @classmethod
    async def load(cls, paths: str | None = None, context: str | None = None) -> Self:
        """Read ``paths`` (several as in ``KUBECONFIG``), and log in.

        Without ``context`` it is the current one: that of the first file that names one, as in
        https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/

        Raises:
            NoCluster: a file, the context, or what a plugin answers cannot be used.
        """
        try:
            merger = KubeConfigMerger(paths or os.environ.get("KUBECONFIG") or DEFAULT_LOCATION)
            loader = KubeConfigLoader(
                merger.config, context or _current_context(merger), config_base_path=None
            )
            login = cls(loader, _User.take(merger.config.value["users"], loader.current_context))
            await loader.load_and_set(login.configuration)
            await login._authenticate()
        except _ERRORS as error:
            raise _unusable(error) from None
        return login

    async def refresh(self) -> None:
        """Renew credentials that have ended; call it before every request.

        Raises:
            NoCluster: the plugin or the token file fails.
        """
        try:
            if self._loader.provider:
                if time.monotonic() - self._provider_read_at > _PROVIDER_SECONDS:
                    self._provider_read_at = time.monotonic()
                    await self._loader.load_and_set(self.configuration)
            elif self._user.token_file or (
                self._plugin_ends and datetime.now(UTC) > self._plugin_ends - _LEEWAY
            ):
                await self._authenticate()
        except _ERRORS as error:
            raise _unusable(error) from None

    async def renew(self) -> bool:
        """Get new credentials, because the API server refused these; False if there are none.

        Raises:
            NoCluster: the plugin or the token file fails.
        """
        if not self._renewable:
            return False
        self._plugin_ends = datetime.now(UTC)
        self._provider_read_at = 0.0
        await self.refresh()
        return True

    @property
    def _renewable(self) -> bool:
        return bool(self._user.plugin or self._user.token_file or self._loader.provider)

    async def _authenticate(self) -> None:
        if self._user.plugin:
            await self._run_plugin()
        elif self._user.token_file:
            self._set_token(self._user.token_file.read_text())

    async def _run_plugin(self) -> None:
        """Run the exec plugin, and take its token or its certificate.

        The answer is described in
        https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
        """
        status = await ExecProvider(self._user.plugin).run()
        ends = status.get("expirationTimestamp")
        self._plugin_ends = parse_time(ends).astimezone(UTC) if ends else None
        if "token" not in status and "clientCertificateData" not in status:
            raise ValueError("the exec plugin answers with neither a token nor a certificate")
        if token := status.get("token"):
            self._set_token(token)
        if "clientCertificateData" in status:
            self.configuration.cert_file = _write_pem(status, "clientCertificateData")
            self.configuration.key_file = _write_pem(status, "clientKeyData")

    def _set_token(self, token: str) -> None:
        self.configuration.api_key["BearerToken"] = f"Bearer {token.strip()}"


class _User(NamedTuple):
    """Those keys of a kubeconfig's user that the client does not read, or reads only once."""

    plugin: Any = None
    token_file: Path | None = None
    impersonation: tuple[tuple[str, str], ...] = ()

    @classmethod
    def take(cls, users: list[Any], context: dict[str, Any]) -> Self:
        """Take these keys out of the user of ``context``, so that the client does not see them."""
        name = context["context"].get("user")
        entry = next((user for user in users if user["name"] == name), None)
        if entry is None or not entry["user"]:
            return cls()
        keys = entry["user"].value
        impersonation = tuple(_impersonation(keys))
        plugin, token_file = keys.pop("exec", None), keys.pop("tokenFile", None)
        if plugin:
            return cls(ConfigNode("exec", plugin), None, impersonation)
        if token_file and "token" not in keys:
            path = Path(entry.path).absolute().parent / token_file
            return cls(None, path, impersonation)
        return cls(impersonation=impersonation)


def _impersonation(user: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the headers that impersonate, as in
    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
    """
    headers = [("Impersonate-User", user["as"])] if user.get("as") else []
    headers += [("Impersonate-Uid", user["as-uid"])] if user.get("as-uid") else []
    headers += [("Impersonate-Group", group) for group in user.get("as-groups") or ()]
    headers += [
        (f"Impersonate-Extra-{key}", value)
        for key, values in (user.get("as-user-extra") or {}).items()
        for value in values
    ]
    return headers


def _current_context(merger: Any) -> str | None:
    """Return the current context of the first file that names one."""
    files = merger.config_files.values()
    return next((file["current-context"] for file in files if file.get("current-context")), None)


def _write_pem(status: dict[str, Any], key: str) -> str:
    pem = FileOrData(status, "", data_key_name=key, base64_file_content=False)
    return str(pem.as_file())


def _unusable(error: Exception) -> NoCluster:
    return NoCluster(
        f"the kubeconfig cannot be used ({one_line(error)}); see kubectl config get-contexts"
    )
