"""Requests to the Kubernetes API through urllib3, each in a thread.

It loads in a fraction of the time that the client of ``cluster_async`` takes: most commands are a
few requests, and then end. An answer is read as a whole, so streams are not for this client.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from flashrun.cluster_login import Connection
from flashrun.cluster_requests import ConnectionBroken, Request, one_line
from flashrun.daemon_thread import in_daemon_thread
from flashrun.proxies import Proxy


class WholeAnswer:
    """An answer that has arrived."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self.status = response.status
        self.retry_after = response.headers.get("Retry-After", "")
        self._content = response.data

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the content."""
        yield self._content

    def release(self) -> None:
        """Do nothing: the connection was given back."""


class BlockingClient:
    """Connections to one API server."""

    def __init__(self, connect_seconds: float) -> None:
        self._connect_seconds = connect_seconds
        self._pool: urllib3.PoolManager | None = None
        self._pool_of: Connection | None = None

    async def send(
        self, connection: Connection, request: Request, seconds: float | None
    ) -> WholeAnswer:
        """Send a request, and return its answer within ``seconds``; None: any time.

        Raises:
            ConnectionBroken: the server did not answer.
        """
        pool = self._pool_for(connection)
        timeout = urllib3.Timeout(connect=self._connect_seconds, read=seconds)
        headers = urllib3.HTTPHeaderDict([*request.headers, *connection.headers])

        def call() -> WholeAnswer:
            url, body = connection.server + request.url, request.text
            return WholeAnswer(
                pool.urlopen(request.method, url, body=body, headers=headers, timeout=timeout)
            )

        try:
            return await asyncio.wait_for(in_daemon_thread(call), seconds)
        except (HTTPError, TimeoutError, OSError) as error:
            raise ConnectionBroken(_cause(error)) from None

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            self._pool.clear()

    def _pool_for(self, connection: Connection) -> urllib3.PoolManager:
        """Return the connections with the certificates of now."""
        place = connection._replace(authorization="")
        if self._pool is None or place != self._pool_of:
            try:
                self._pool = connection_pool(connection)
            except OSError as error:  # of TLS, too
                raise ConnectionBroken(f"its certificates cannot be read: {error}") from None
            self._pool_of = place
        return self._pool


def connection_pool(connection: Connection) -> urllib3.PoolManager:
    """Return connections to a server, with its proxy and whom to trust; raises ``OSError``."""
    keywords: dict[str, Any] = {
        # A broken connection is the caller's to repeat; of a redirect, credentials stay behind.
        "retries": urllib3.Retry(total=None, connect=0, read=0, redirect=3, status=0, other=0),
        "maxsize": 16,
    }
    if connection.server.startswith("https"):
        if connection.insecure:
            urllib3.disable_warnings(InsecureRequestWarning)  # the kubeconfig says so
        keywords["ssl_context"] = connection.tls_context()
        if connection.server_name:
            keywords["server_hostname"] = connection.server_name
    if not connection.proxy:
        return urllib3.PoolManager(**keywords)
    proxy = Proxy.parse(connection.proxy)
    return urllib3.ProxyManager(proxy.address, proxy_headers=proxy.user_headers, **keywords)


def _cause(error: Exception) -> str:
    """Return why the server did not answer."""
    match error:
        case MaxRetryError(reason=Exception() as reason):
            return _cause(reason)
        case ProxyError():
            return _cause(error.original_error)
        case SSLError():
            return f"its certificate is not trusted: {one_line(error)}"
        case NameResolutionError():
            return "its host name does not resolve"
        case NewConnectionError():  # before the timeout, which it inherits from
            return "the connection is refused"
        case ConnectTimeoutError() | ReadTimeoutError() | TimeoutError():
            return "no answer in time"
        case _:
            return f"the connection broke, {type(error).__name__}"
