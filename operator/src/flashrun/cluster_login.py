"""Address and credentials of an API server: what a login holds, and that of a pod.

The login of a person is in ``kubeconfig``.
"""

import os
import ssl
import time
from pathlib import Path
from typing import Final, NamedTuple, Self

from typing_extensions import override

from flashrun.cluster_errors import NoCluster
from flashrun.proxies import environment_proxy

_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_SECONDS: Final = 60.0
"""How often the token file of a pod is read: the kubelet replaces it long before it ends."""


class Connection(NamedTuple):
    """Address and credentials of the API server as of now."""

    server: str
    ca_path: str | None = None
    certificate_path: str | None = None
    key_path: str | None = None
    authorization: str = ""
    """The header of this name; empty without one."""
    insecure: bool = False
    proxy: str | None = None
    server_name: str | None = None
    """The name in the server's certificate, when it is not the one in its address."""
    impersonation: tuple[tuple[str, str], ...] = ()
    """Headers that name the user to impersonate."""

    def __repr__(self) -> str:
        """Return the address alone, as debuggers and verbose tracebacks show it."""
        return f"Connection(server={self.server!r})"

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers of every request, some of them several times."""
        credentials = (("Authorization", self.authorization),) if self.authorization else ()
        return (*self.impersonation, *credentials)

    def tls_context(self) -> ssl.SSLContext:
        """Return whom to trust and the certificate of this user; raises ``OSError``."""
        context = ssl.create_default_context(cafile=self.ca_path)
        # From Python 3.13 on it refuses authorities that kubectl trusts: without the identifier of
        # their key, as many clusters have them.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.certificate_path:
            context.load_cert_chain(self.certificate_path, self.key_path)
        if self.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


class Login:
    """Credentials that stay as they are."""

    def __init__(self, connection: Connection, context: str, namespace: str) -> None:
        self.connection = connection
        self.context = context
        """Name of the kubeconfig's context; empty inside a pod."""
        self.namespace = namespace
        """Namespace of the context, or of the pod."""

    async def refresh(self) -> None:
        """Renew credentials that have ended; call it before every request.

        Raises:
            NoCluster: they cannot be renewed.
        """

    async def renew(self, refused: Connection | None = None) -> bool:
        """Get new credentials, because the API server refused these; False if there are none.

        When others than ``refused`` are there by now, another request has got them.

        Raises:
            NoCluster: they cannot be renewed.
        """
        return False


class PodLogin(Login):
    """The service account that is mounted into this pod."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        super().__init__(connection, "", namespace)
        self._read_at = time.monotonic()

    @classmethod
    def load(cls) -> Self:
        """Read the mounted files; raises ``OSError`` or ``KeyError`` outside a pod."""
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        authority = _SERVICE_ACCOUNT / "ca.crt"
        authority.read_bytes()  # an error of it is one of the login
        connection = Connection(
            server, str(authority), authorization=_bearer(), proxy=environment_proxy(server)
        )
        return cls(connection, (_SERVICE_ACCOUNT / "namespace").read_text().strip())

    @override
    async def refresh(self) -> None:
        if time.monotonic() - self._read_at > _TOKEN_SECONDS:
            self._read()

    @override
    async def renew(self, refused: Connection | None = None) -> bool:
        refused = refused or self.connection
        self._read()
        return self.connection != refused

    def _read(self) -> None:
        try:
            self.connection = self.connection._replace(authorization=_bearer())
        except OSError as error:
            raise NoCluster(f"the token of this pod cannot be read: {error}") from None
        self._read_at = time.monotonic()


def _bearer() -> str:
    return f"Bearer {(_SERVICE_ACCOUNT / 'token').read_text().strip()}"
