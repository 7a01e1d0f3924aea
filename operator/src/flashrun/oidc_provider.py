"""OpenID Connect of a kubeconfig (``auth-provider``): an id token, and a new one when it ends.

The rules are those of kubectl, which keeps the new tokens in the kubeconfig: many providers accept
a refresh token once. The kubernetes package, too, can renew, but with a certificate authority of
the provider it fails, without one it trusts any server, and it keeps no token.
"""

import base64
import binascii
import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import urllib3
import yaml

from flashrun.cluster_blocking import connection_pool
from flashrun.cluster_login import Connection
from flashrun.cluster_requests import one_line
from flashrun.daemon_thread import in_daemon_thread
from flashrun.proxies import environment_proxy

_TIMEOUT: Final = urllib3.Timeout(connect=5, read=15)
_ID_TOKEN: Final = "id-token"
_REFRESH_TOKEN: Final = "refresh-token"


class OidcProvider:
    """The tokens of one user of a kubeconfig."""

    def __init__(
        self, config: Mapping[str, Any], ca_path: str | None, user: str, path: Path
    ) -> None:
        """Take the ``config`` of the auth provider of ``user`` in the kubeconfig at ``path``.

        ``ca_path`` has the certificate authority of the provider; None: the usual ones.
        """
        self._config = {key: str(value) for key, value in config.items()}
        self._ca_path, self._user, self._path = ca_path, user, path
        self.ends: datetime | None = None
        """When the id token ends; None: it does not say."""

    async def id_token(self) -> str:
        """Return the id token, and get a new one when it has ended.

        Raises:
            ValueError: there is none, and no way to get one.
        """
        token = self._config.get(_ID_TOKEN, "")
        self.ends = _end_of(token) if token else None
        if not token or (self.ends is not None and self.ends <= datetime.now(UTC)):
            if not self.can_renew:
                raise ValueError(
                    "the OpenID Connect token has ended, and the kubeconfig has no refresh-token"
                )
            return await self.renew()
        return token

    @property
    def can_renew(self) -> bool:
        """Whether the kubeconfig has what a new token is asked with."""
        return bool(self._config.get(_REFRESH_TOKEN))

    async def renew(self) -> str:
        """Get a new id token and keep it in the kubeconfig; raises ``ValueError``."""
        try:
            answer = await in_daemon_thread(self._ask)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ValueError(f"the OpenID Connect provider: {one_line(error)}") from None
        token = str(answer.get("id_token") or "")
        if not token:
            raise ValueError("the OpenID Connect provider answers no id_token")
        self.ends = _end_of(token)
        given = {_ID_TOKEN: token, _REFRESH_TOKEN: str(answer.get("refresh_token") or "")}
        self._config |= {key: value for key, value in given.items() if value}
        with contextlib.suppress(OSError, yaml.YAMLError):  # it is used all the same
            _replace_tokens(self._path, self._user, self._config)
        return token

    def _ask(self) -> Mapping[str, Any]:
        """Ask the provider for new tokens.

        https://openid.net/specs/openid-connect-core-1_0.html#RefreshTokens
        """
        issuer = self._config["idp-issuer-url"].rstrip("/")
        pool = connection_pool(
            Connection(issuer, ca_path=self._ca_path, proxy=environment_proxy(issuer))
        )
        found = pool.request("GET", f"{issuer}/.well-known/openid-configuration", timeout=_TIMEOUT)
        endpoint = _document(found).get("token_endpoint")
        client, secret = self._config["client-id"], self._config.get("client-secret", "")
        fields = {"grant_type": "refresh_token", "refresh_token": self._config[_REFRESH_TOKEN]}
        headers = urllib3.make_headers(basic_auth=f"{client}:{secret}") if secret else None
        if not secret:  # a public client
            fields["client_id"] = client
        answer = pool.request(
            "POST", str(endpoint), fields=fields, headers=headers,
            encode_multipart=False, timeout=_TIMEOUT,
        )  # fmt: skip
        return _document(answer)


def _document(response: urllib3.BaseHTTPResponse) -> Mapping[str, Any]:
    try:
        document = json.loads(response.data)
    except ValueError:
        document = None
    if response.status != 200 or not isinstance(document, dict):
        named = document if isinstance(document, dict) else {}
        words = [str(response.status), *map(str, filter(None, map(named.get, _ERROR_KEYS)))]
        raise ValueError(f"the OpenID Connect provider answers {one_line(': '.join(words))}")
    return document


_ERROR_KEYS: Final = ("error", "error_description")


def _end_of(token: str) -> datetime | None:
    """Return when a JSON Web Token ends; None when it does not say."""
    try:
        _, payload, _ = token.split(".")
        padded = payload + "=" * (-len(payload) % 4)
        end = json.loads(base64.urlsafe_b64decode(padded)).get("exp")
        return None if end is None else datetime.fromtimestamp(float(end), UTC)
    except (ValueError, AttributeError, TypeError, OverflowError, OSError, binascii.Error):
        raise ValueError("the id-token of the auth-provider is not a JWT") from None


def _replace_tokens(path: Path, user: str, tokens: Mapping[str, str]) -> None:
    """Write the tokens of a user in the place of the old ones; the rest of the file stays."""
    path = path.resolve()
    text = path.read_text()
    places = [
        (node.start_mark.index, node.end_mark.index, tokens[key])
        for key, node in _token_nodes(yaml.compose(text, yaml.SafeLoader), user)
        if node.value != tokens[key]
    ]
    for start, end, value in sorted(places, reverse=True):
        text = text[:start] + json.dumps(value) + text[end:]
    if not places:
        return
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.chmod(fresh, path.stat().st_mode & 0o777)
    os.replace(fresh, path)


def _token_nodes(document: Any, user: str) -> list[tuple[str, Any]]:
    """Return the places of the tokens of a user, as nodes of YAML."""

    def keys(node: Any) -> dict[str, Any]:
        return {key.value: value for key, value in node.value}

    for entry in keys(document)["users"].value:
        found = keys(entry)
        if found["name"].value == user:
            config = keys(keys(keys(found["user"])["auth-provider"])["config"])
            return [(key, config[key]) for key in (_ID_TOKEN, _REFRESH_TOKEN) if key in config]
    return []
