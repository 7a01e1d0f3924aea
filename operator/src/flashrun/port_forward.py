"""A port-forward from a laptop to a Service inside the cluster, through the API server.

It needs only the right to ``pods/portforward``. The API server speaks the protocol over a
WebSocket (``v4.channel.k8s.io``): each frame begins with a channel number, 0 for data and 1 for
errors, and the first frame of each channel repeats the port. When the host name of storage
resolves on this machine, nothing is forwarded.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from flashrun.api.records import StorageAccess
from flashrun.api.storage_endpoint import in_cluster_service
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError, Forbidden, Unreachable
from flashrun.plan.kubernetes_status import find_condition

if TYPE_CHECKING:
    import aiohttp

_DATA: Final = 0
_ERROR: Final = 1
_CHUNK: Final = 64 * 1024


@contextlib.asynccontextmanager
async def forwarded_endpoint(
    cluster: Cluster, access: StorageAccess
) -> AsyncIterator[StorageAccess]:
    """Yield ``access`` with an endpoint that this machine can reach.

    Raises:
        Forbidden: the user may not forward ports in the namespace of storage.
        Unreachable: the Service has no pod that is ready.
    """
    url = urlsplit(access.endpoint)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    service = in_cluster_service(host)
    if service is None or await _resolves(host, port):
        yield access
        return
    if not await _may_forward(cluster, service[1]):
        raise Forbidden(
            f"storage is inside the cluster, in namespace {service[1]}, where you may not forward "
            "ports: the cluster's administrator binds the ClusterRole flashrun-storage-forward "
            "there (flash doctor prints the command)"
        )
    async with _forwarded_port(cluster, "storage", service, port) as local:
        # An address has no names below it, in which buckets could be.
        yield access.replace(endpoint=f"{url.scheme}://127.0.0.1:{local}", addressing="path")


@contextlib.asynccontextmanager
async def forwarded_service(
    cluster: Cluster, name: str, namespace: str, port: int
) -> AsyncIterator[str]:
    """Yield the address on this machine of a Service that speaks HTTP.

    Raises:
        Forbidden: the user may not forward ports in the namespace.
        NotFound: the Service does not exist.
        Unreachable: it has no pod that is ready.
    """
    if not await _may_forward(cluster, namespace):
        raise Forbidden(
            f"you may not forward ports in namespace {namespace}, where service {name} is: the "
            "cluster's role edit has this right"
        )
    async with _forwarded_port(cluster, "the server", (name, namespace), port) as local:
        yield f"http://127.0.0.1:{local}"


@contextlib.asynccontextmanager
async def _forwarded_port(
    cluster: Cluster, what: str, service: tuple[str, str], port: int
) -> AsyncIterator[int]:
    """Yield the port of the loopback address that leads to ``port`` of a Service."""
    pod, target = await _find_pod(cluster, what, service, port)
    forward = _Forward(cluster, service[1], pod, target)
    server = await forward.listen()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await forward.close_connections()


async def _may_forward(cluster: Cluster, namespace: str) -> bool:
    """Return whether the user has the right; the connection would break without a message."""
    verbs = ("get", "create")  # older API servers check get for a WebSocket, newer ones create
    return any([await cluster.may(verb, "Pod", namespace, "portforward") for verb in verbs])


async def _resolves(host: str, port: int) -> bool:
    try:
        await asyncio.get_running_loop().getaddrinfo(host, port)
    except OSError:
        return False
    return True


async def _find_pod(
    cluster: Cluster, what: str, place: tuple[str, str], port: int
) -> tuple[str, int]:
    """Return a ready pod of a Service, and the port of the pod for ``port`` of the Service."""
    name, namespace = place
    service = await cluster.get("Service", namespace, name)
    selector = service["spec"].get("selector") or {}
    pods = await cluster.list("Pod", namespace, selector) if selector else []
    ready = [pod for pod in pods if find_condition(pod, "Ready")]
    if not ready:
        raise Unreachable(
            f"{what} is service {name} in namespace {namespace}, and none of its pods is ready; "
            f"kubectl describe pods -n {namespace} and their logs show why"
        )
    target = next(
        (item.get("targetPort", port) for item in service["spec"]["ports"] if item["port"] == port),
        port,
    )
    return ready[0]["metadata"]["name"], _port_number(ready[0], target)


def _port_number(pod: dict[str, Any], port: int | str) -> int:
    """Return the number of a port of ``pod`` that is given as a number or a name."""
    if isinstance(port, int):
        return port
    ports = [item for box in pod["spec"]["containers"] for item in box.get("ports") or []]
    number = next((item["containerPort"] for item in ports if item.get("name") == port), None)
    if number is None:
        raise Unreachable(f"pod {pod['metadata']['name']} has no port named {port}")
    return int(number)


class _Forward:
    """A local port that forwards its connections to a port of a pod."""

    def __init__(self, cluster: Cluster, namespace: str, pod: str, port: int) -> None:
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"
        self._open: set[asyncio.Task[None]] = set()

    async def listen(self) -> asyncio.Server:
        """Listen on a free port of the loopback address."""
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close_connections(self) -> None:
        """Close the connections: whoever opened them may keep them open for later requests."""
        for forwarding in self._open:
            forwarding.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        forwarding = asyncio.create_task(self._forward(reader, writer))
        self._open.add(forwarding)
        try:
            await asyncio.wait({forwarding})
        finally:
            self._open.discard(forwarding)
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import aiohttp  # slow to load, and most storage is reached without

        with contextlib.suppress(aiohttp.ClientError, OSError, ClusterError):
            async with self._socket() as socket:
                sending = asyncio.create_task(_send(reader, socket))
                try:
                    await _receive(socket, writer)
                finally:
                    sending.cancel()

    @contextlib.asynccontextmanager
    async def _socket(self) -> AsyncIterator["aiohttp.ClientWebSocketResponse"]:
        import aiohttp
        from multidict import CIMultiDict

        connection = await self._cluster.connection()
        async with (
            aiohttp.ClientSession(headers=CIMultiDict(connection.headers)) as session,
            session.ws_connect(
                connection.server.rstrip("/") + self._path,
                protocols=("v4.channel.k8s.io",),
                ssl=connection.tls_context(),
                proxy=connection.proxy,
                server_hostname=connection.server_name,
                max_msg_size=0,
            ) as socket,
        ):
            yield socket


async def _send(reader: asyncio.StreamReader, socket: "aiohttp.ClientWebSocketResponse") -> None:
    while data := await reader.read(_CHUNK):
        await socket.send_bytes(bytes((_DATA,)) + data)
    await socket.close()


async def _receive(socket: "aiohttp.ClientWebSocketResponse", writer: asyncio.StreamWriter) -> None:
    seen_channels: set[int] = set()
    async for message in socket:
        if not isinstance(message.data, bytes) or not message.data:  # a text, or the end
            continue
        channel, data = message.data[0], message.data[1:]
        if channel not in seen_channels:
            seen_channels.add(channel)  # the first frame of a channel repeats the port
        elif channel == _ERROR:
            return
        else:
            writer.write(data)
            await writer.drain()
