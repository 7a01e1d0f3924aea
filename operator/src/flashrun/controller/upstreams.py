"""Credentials of package index, model hub and proxy, for trainer pods.

They come from Secrets that are mounted into the operator, and go into one Secret of each served
namespace. The addresses are public settings; the credentials are in no setting, status or log, and
are bound to the host or the address that they are for.
"""

import urllib.parse
from pathlib import Path

from flashrun.api import names
from flashrun.api.platform import TrainerSettings
from flashrun.api.records import HubAccess
from flashrun.cluster import Cluster
from flashrun.controller.settings import SettingsError
from flashrun.plan.types import Object


class Upstreams:
    """What trainer pods need to download; the files are read again for every call."""

    def __init__(self, trainer: TrainerSettings, folder: Path) -> None:
        self._trainer, self._folder = trainer, folder

    async def publish_in(self, cluster: Cluster, namespace: str, labels: dict[str, str]) -> None:
        """Write the Secret of one namespace if it differs; empty one that nothing needs.

        Raises:
            ClusterError: it cannot be written.
            SettingsError: a mounted Secret cannot be used.
        """
        name = names.UPSTREAMS_SECRET
        needed = self._trainer.needs_credentials
        if not needed and await cluster.metadata("Secret", namespace, name) is None:
            return
        metadata: Object = {"name": name, "namespace": namespace, "labels": labels}
        await cluster.sync_secret(metadata, self.values())

    def values(self) -> dict[str, str]:
        """Return the values of the Secret; those that nothing needs are empty.

        Raises:
            SettingsError: a mounted Secret cannot be used; with the name of its key, not its value.
        """
        trainer = self._trainer
        proxies = {name.upper(): address for name, address in trainer.proxy.items()}
        for name, address in trainer.proxies_with_credentials.items():
            proxies[name] = _with_user(address, *self._basic("proxy", "proxySecret"))
        return {
            names.NETRC_KEY: self._netrc() if trainer.pip_index_secret else "",
            names.HUB_KEY: self._hub().model_dump_json() if trainer.hub_secret else "",
            "HTTP_PROXY": "",
            "HTTPS_PROXY": "",
            **proxies,
        }

    def _netrc(self) -> str:
        """Return the credentials of the index in the form that pip reads."""
        host = urllib.parse.urlsplit(self._trainer.pip_index_url).hostname
        username, password = map(_quoted, self._basic("index", "pipIndexSecret"))
        return f"machine {host} login {username} password {password}\n"

    def _hub(self) -> HubAccess:
        endpoint = self._trainer.hub_endpoint
        if (self._folder / "hub" / "token").exists():
            return HubAccess(endpoint=endpoint, token=self._read("hub", "token", "hubSecret"))
        username, password = self._basic("hub", "hubSecret")
        return HubAccess(endpoint=endpoint, username=username, password=password)

    def _basic(self, folder: str, setting: str) -> tuple[str, str]:
        return self._read(folder, "username", setting), self._read(folder, "password", setting)

    def _read(self, folder: str, key: str, setting: str) -> str:
        """Return one value of a mounted Secret, without the line end that editors add."""
        try:
            value = (self._folder / folder / key).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"the Secret of trainer.{setting} has no usable key {key}: {type(error).__name__}"
            ) from None
        if not value.isprintable() or not value.isascii() or not value:
            raise SettingsError(
                f"key {key} of the Secret of trainer.{setting} is not one line of ASCII characters"
            )
        return value


def _quoted(text: str) -> str:
    """Return ``text`` as one word of a netrc file."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _with_user(address: str, username: str, password: str) -> str:
    """Return an address with user and password in it, for programs that know no other way."""
    scheme, separator, rest = address.rpartition("://")
    user = ":".join(urllib.parse.quote(part, safe="") for part in (username, password))
    return f"{scheme}{separator}{user}@{rest}"
