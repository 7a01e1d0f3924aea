"""Requests to the Kubernetes API through aiohttp, as the kubernetes client makes them.

Any number of requests and streams run at once in one thread.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from multidict import CIMultiDict

from flashrun.cluster_login import Connection
from flashrun.cluster_requests import ConnectionBroken, Request, one_line

REUSED_BYTES: Final = 32 * 1024
"""Longest body after which the connection serves another request."""
_BREAKS = (aiohttp.ClientError, TimeoutError, OSError)


class ArrivingAnswer:
    """An answer of which the content arrives."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.retry_after = response.headers.get("Retry-After", "")
        self._response = response

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the content as it arrives; raises ``ConnectionBroken``."""
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except _BREAKS as error:
            raise ConnectionBroken(_cause(error)) from None

    def release(self) -> None:
        """Give the connection back."""
        self._response.release()


class StreamingClient:
    """Connections to one API server."""

    def __init__(self, connect_seconds: float) -> None:
        self._connect_seconds = connect_seconds
        self._clients: dict[Connection, Any] = {}

    async def send(
        self, connection: Connection, request: Request, seconds: float | None
    ) -> ArrivingAnswer:
        """Send a request, and return its answer; all of it arrives within ``seconds``.

        Raises:
            ConnectionBroken: the server did not answer.
        """
        headers = CIMultiDict([*request.headers, *connection.headers])
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=self._connect_seconds)
        try:
            answer = await self._client_for(connection).request(
                request.method,
                connection.server + request.url,
                headers=headers,
                body=request.body,
                _request_timeout=limits,
            )
        except _BREAKS as error:
            raise ConnectionBroken(_cause(error)) from None
        return ArrivingAnswer(answer.response)

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()

    def _client_for(self, connection: Connection) -> Any:
        """Return the client with the certificates of now; streams of earlier ones go on."""
        place = connection._replace(authorization="")
        if place not in self._clients:
            self._clients[place] = RESTClientObject(_configuration(place))
        return self._clients[place]


def _configuration(connection: Connection) -> Any:
    configuration: Any = Configuration()
    configuration.host = connection.server
    configuration.ssl_ca_cert = connection.ca_path
    configuration.cert_file = connection.certificate_path
    configuration.key_file = connection.key_path
    configuration.verify_ssl = not connection.insecure
    configuration.disable_strict_ssl_verification = True  # as in Connection.tls_context
    configuration.tls_server_name = connection.server_name
    configuration.proxy = connection.proxy
    # The client would look up the proxy of every request in the environment, in a thread.
    configuration.client_session_kwargs = {
        "trust_env": False,
        "middlewares": (_close_after_large_body,),
    }
    return configuration


async def _close_after_large_body(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Have the connection of a large body closed after the answer.

    OpenSSL keeps room for the largest body as long as the connection lives, and each request takes
    another idle connection: all of them would grow in turn.
    """
    if request.body and (request.body.size or 0) > REUSED_BYTES:
        request.headers[aiohttp.hdrs.CONNECTION] = "close"
    return await send(request)


def _cause(error: Exception) -> str:
    """Return why the server did not answer."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return f"its certificate is not trusted: {one_line(error)}"
        case aiohttp.ClientConnectorDNSError():
            return "its host name does not resolve"
        case aiohttp.ClientConnectorError():
            return "the connection is refused"
        case TimeoutError():
            return "no answer in time"
        case _:
            return f"the connection broke, {type(error).__name__}"
