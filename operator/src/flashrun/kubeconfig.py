"""The user's kubeconfig: which context holds, and credentials that are renewed when they end.

It is read as kubectl reads it. The kubernetes package would read it, too, but takes longer to load
than a short command takes in all, and reads some of it otherwise: the current context of several
files, the later tokens of exec plugins and token files, and the user to impersonate (``as``).
"""

import asyncio
import atexit
import base64
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import yaml
from typing_extensions import override

from flashrun.api.times import parse_time
from flashrun.cluster_errors import NoCluster
from flashrun.cluster_login import Connection, Login
from flashrun.cluster_requests import one_line
from flashrun.exec_plugin import run_exec_plugin
from flashrun.proxies import environment_proxy, usable_proxy

if TYPE_CHECKING:
    from flashrun.oidc_provider import OidcProvider

DEFAULT_LOCATION: Final = str(Path("~/.kube/config"))

_LEEWAY: Final = timedelta(seconds=2)
"""A token is renewed this long before it ends, so that it is valid when the server reads it."""
_ERRORS: Final = (
    yaml.YAMLError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)
"""What a malformed kubeconfig or a plugin that fails raises."""
_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def kubeconfig_paths() -> list[Path]:
    """Return the kubeconfigs of this user that exist."""
    return _existing(os.environ.get("KUBECONFIG") or DEFAULT_LOCATION)


class Kubeconfig(Login):
    """One context of the user's kubeconfig files, logged in."""

    def __init__(
        self,
        connection: Connection,
        context: str,
        namespace: str,
        *,
        cluster: "_Entry",
        user: "_Entry",
    ) -> None:
        super().__init__(connection, context, namespace)
        self._cluster, self._user = cluster, user
        self._renewing = asyncio.Lock()
        self._ends: datetime | None = None
        """When the credentials of a plugin or a provider end; None: nobody says."""
        self._provider: OidcProvider | None = None

    @classmethod
    async def load(cls, paths: str | None = None, context: str | None = None) -> Self:
        """Read ``paths`` (several as in ``KUBECONFIG``), and log in.

        Without ``context`` it is the current one: that of the first file that names one, as in
        https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/

        Raises:
            NoCluster: a file, the context, or what a plugin answers cannot be used.
        """
        paths = paths or os.environ.get("KUBECONFIG") or DEFAULT_LOCATION
        try:
            files = {path: _read(path) for path in _existing(paths)}
            name = context or _current_context(files)
            chosen = _Entry.find(files, "contexts", name).keys
            cluster = _Entry.find(files, "clusters", chosen["cluster"])
            user = _Entry(Path(), "", {})
            if chosen.get("user"):
                user = _Entry.find(files, "users", chosen["user"], optional=True)
            namespace = chosen.get("namespace") or "default"
            connection = _connection(cluster, user)
            login = cls(connection, name, namespace, cluster=cluster, user=user)
            await login._authenticate()
        except _ERRORS as error:
            raise _unusable(error) from None
        return login

    @override
    async def refresh(self) -> None:
        ended = self._ends and datetime.now(UTC) > self._ends - _LEEWAY
        if ended or _token_file(self._user.keys):
            await self.renew()

    @override
    async def renew(self, refused: Connection | None = None) -> bool:
        keys = self._user.keys
        can_renew = self._provider and self._provider.can_renew
        if not (keys.get("exec") or can_renew or _token_file(keys)):
            return False
        refused = refused or self.connection
        async with self._renewing:  # a plugin asks a person once, and not for each request
            if self.connection is not refused:
                return True
            try:
                await self._authenticate(again=True)
            except _ERRORS as error:
                raise _unusable(error) from None
        return True

    async def _authenticate(self, *, again: bool = False) -> None:
        """Set the credentials of now, of the first kind that the user has; ``again``: new ones."""
        keys = self._user.keys
        if keys.get("exec"):
            await self._run_plugin(keys["exec"])
        elif keys.get("auth-provider"):
            await self._ask_provider(keys["auth-provider"], again=again)
        elif keys.get("token"):
            self._set_authorization(f"Bearer {keys['token'].strip()}")
        elif file := _token_file(keys):
            self._set_authorization(f"Bearer {self._user.beside(file).read_text().strip()}")
        elif "username" in keys and "password" in keys:
            encoded = base64.b64encode(f"{keys['username']}:{keys['password']}".encode())
            self._set_authorization(f"Basic {encoded.decode()}")

    async def _run_plugin(self, plugin: Mapping[str, Any]) -> None:
        """Run the exec plugin, and take its token or its certificate."""
        cluster = _cluster_information(self._cluster) if plugin.get("provideClusterInfo") else None
        status = await run_exec_plugin(plugin, self._user.path.absolute().parent, cluster)
        self._ends = _moment(status.get("expirationTimestamp"))
        if "token" not in status and "clientCertificateData" not in status:
            raise ValueError("the exec plugin answers with neither a token nor a certificate")
        if token := status.get("token"):
            if not isinstance(token, str):
                raise ValueError("the exec plugin answers a token that is not a text")
            self._set_authorization(f"Bearer {token.strip()}")
        if certificate := status.get("clientCertificateData"):
            self.connection = self.connection._replace(
                certificate_path=_private_file(certificate.encode()),
                key_path=_private_file(status["clientKeyData"].encode()),
            )

    async def _ask_provider(self, chosen: Mapping[str, Any], *, again: bool) -> None:
        if chosen["name"] != "oidc":
            raise ValueError(f"the auth-provider {chosen['name']} is not supported")
        if self._provider is None:
            from flashrun.oidc_provider import OidcProvider

            entry = self._user._replace(keys=chosen.get("config") or {})
            authority = entry.file("idp-certificate-authority")
            self._provider = OidcProvider(entry.keys, authority, entry.name, entry.path)
        provider = self._provider
        token = await (provider.renew() if again else provider.id_token())
        self._set_authorization(f"Bearer {token}")
        self._ends = provider.ends if provider.can_renew else None

    def _set_authorization(self, header: str) -> None:
        self.connection = self.connection._replace(authorization=header)


class _Entry(NamedTuple):
    """A named entry of a kubeconfig, and the file that has it."""

    path: Path
    name: str
    keys: Mapping[str, Any]

    @classmethod
    def find(
        cls, files: Mapping[Path, Any], kind: str, name: str, *, optional: bool = False
    ) -> Self:
        """Return the entry of the first file that has it; raises ``ValueError`` without one."""
        for path, file in files.items():
            for entry in file.get(kind) or ():
                if entry["name"] == name:
                    return cls(path, name, entry[kind.removesuffix("s")] or {})
        if optional:
            return cls(Path(), name, {})
        raise ValueError(f"{kind} has no entry named {name}")

    def beside(self, path: str) -> Path:
        """Return a path that is relative to the kubeconfig's folder."""
        return self.path.absolute().parent / path

    def file(self, key: str) -> str | None:
        """Return the file that ``key`` names, or one with the content of ``key``-data."""
        if data := self.keys.get(f"{key}-data"):
            return _private_file(base64.b64decode(data))
        if not self.keys.get(key):
            return None
        path = self.beside(self.keys[key])
        path.read_bytes()  # an error of it is one of the login
        return str(path)


def _connection(cluster: _Entry, user: _Entry) -> Connection:
    """Return address and certificates of a cluster and a user of it."""
    keys = cluster.keys
    server = _server_address(keys, user.keys)
    encrypted = server.startswith("https")
    return Connection(
        server=server,
        ca_path=cluster.file("certificate-authority") if encrypted else None,
        certificate_path=user.file("client-certificate") if encrypted else None,
        key_path=user.file("client-key") if encrypted else None,
        insecure=bool(keys.get("insecure-skip-tls-verify")),
        proxy=usable_proxy(keys.get("proxy-url"), "proxy-url") or environment_proxy(server),
        server_name=keys.get("tls-server-name") or None,
        impersonation=tuple(_impersonation(user.keys)),
    )


def _server_address(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    """Return the address of the API server; one without a scheme gets that which kubectl takes."""
    server = str(cluster["server"] or "").rstrip("/")
    if not server:
        raise ValueError("its cluster names no server")
    if "://" not in server:
        of_tls = (
            *(cluster.get(f"certificate-authority{end}") for end in ("", "-data")),
            *(user.get(f"client-certificate{end}") for end in ("", "-data")),
            cluster.get("insecure-skip-tls-verify"),
        )
        server = f"{'https' if any(of_tls) else 'http'}://{server}"
    scheme = server.partition("://")[0]
    if scheme not in ("http", "https"):
        raise ValueError(f"the server has an address of {scheme}://, and not of https://")
    return server


_EXEC_EXTENSION: Final = "client.authentication.k8s.io/exec"
_SHARED_KEYS: Final = (
    "server",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "certificate-authority-data",
    "proxy-url",
    "disable-compression",
)


def _cluster_information(cluster: _Entry) -> dict[str, Any]:
    """Return what an exec plugin gets to know of the cluster when it asks, as from kubectl."""
    known = {key: cluster.keys[key] for key in _SHARED_KEYS if cluster.keys.get(key)}
    if "certificate-authority-data" not in known and cluster.keys.get("certificate-authority"):
        authority = cluster.beside(cluster.keys["certificate-authority"]).read_bytes()
        known["certificate-authority-data"] = base64.b64encode(authority).decode()
    for extension in cluster.keys.get("extensions") or ():
        if extension["name"] == _EXEC_EXTENSION:
            known["config"] = extension["extension"]
    return known


def _impersonation(user: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the headers that impersonate, as in
    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
    """
    if user.get("as"):
        yield "Impersonate-User", user["as"]
    if user.get("as-uid"):
        yield "Impersonate-Uid", user["as-uid"]
    for group in user.get("as-groups") or ():
        yield "Impersonate-Group", group
    for key, values in (user.get("as-user-extra") or {}).items():
        for value in values:
            yield f"Impersonate-Extra-{key}", value


def _moment(text: str | None) -> datetime | None:
    """Return when a plugin says that its credentials end; None: it does not."""
    if not text:
        return None
    try:
        return parse_time(text).astimezone(UTC)
    except (ValueError, TypeError):
        raise ValueError("the exec plugin's expirationTimestamp is not a time") from None


def _token_file(user: Mapping[str, Any]) -> str:
    """Return the path of the file that holds the user's token; empty without one."""
    first = ("exec", "auth-provider", "token")
    return "" if any(map(user.get, first)) else str(user.get("tokenFile") or "")


def _existing(paths: str) -> list[Path]:
    places = (Path(path).expanduser() for path in paths.split(os.pathsep) if path)
    return [path for path in places if path.exists()]


def _read(path: Path) -> Any:
    content = yaml.load(path.read_bytes(), _Loader) or {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a kubeconfig")
    return content


def _current_context(files: Mapping[Path, Any]) -> str:
    """Return the current context of the first file that names one; raises ``ValueError``."""
    names = (file["current-context"] for file in files.values() if file.get("current-context"))
    if (name := next(names, None)) is None:
        raise ValueError("it names no current-context")
    return str(name)


@cache
def _private_folder() -> str:
    """Return a folder that only this user can read, and that goes when the program ends.

    Processes that it forks share the folder, and leave it there when they end.
    """
    folder, owner = tempfile.mkdtemp(prefix="flashrun-"), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


@cache
def _private_file(content: bytes) -> str:
    """Return the path of a file with ``content``: TLS reads certificates from files only."""
    descriptor, path = tempfile.mkstemp(dir=_private_folder())
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return path


def _unusable(error: Exception) -> NoCluster:
    match error:
        case KeyError():
            problem = f"{error} is missing"
        case OSError(filename=str(path), strerror=str(why)):
            problem = f"{path}: {why}"
        case _:
            problem = one_line(error)
    return NoCluster(f"the kubeconfig cannot be used ({problem}); see kubectl config get-contexts")
