"""Kubeconfigs that tests write, and a server that is reached under another name."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from localcluster.controlplane import ControlPlane
from tests.servers import kubectl
from tests.store.forward_proxy import forward_proxy


def write_config(path: Path, server: str, user: dict[str, Any], **cluster: Any) -> Path:
    """Write a kubeconfig; its context has the name of the file."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": path.stem, "cluster": {"server": server, **cluster}}],
        "users": [{"name": path.stem, "user": user}],
        "contexts": [{"name": path.stem, "context": {"cluster": path.stem, "user": path.stem}}],
        "current-context": path.stem,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(config))
    return path


def read_config(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@contextlib.asynccontextmanager
async def relay_to(server: str) -> AsyncIterator[str]:
    """Relay connections of another loopback address to ``server``."""
    target = urlsplit(server)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(target.hostname, target.port)
        writers.extend((writer, there[1]))
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    listening = await asyncio.start_server(serve, "127.0.0.9", 0)
    async with listening:
        yield f"https://127.0.0.9:{listening.sockets[0].getsockname()[1]}"
        for writer in writers:
            writer.close()


# --- what a kubeconfig may say of the way to its server -------------------------------------------


@contextlib.asynccontextmanager
async def under_another_name(config: dict[str, Any], _: ControlPlane) -> AsyncIterator[None]:
    """The certificate of the server does not name its address."""
    cluster = config["clusters"][0]["cluster"]
    async with relay_to(cluster["server"]) as address:
        cluster |= {"server": address, "tls-server-name": "kubernetes.default.svc"}
        yield


@contextlib.asynccontextmanager
async def without_its_authority(config: dict[str, Any], _: ControlPlane) -> AsyncIterator[None]:
    """Nobody knows who signed the certificate of the server."""
    cluster = config["clusters"][0]["cluster"]
    del cluster["certificate-authority-data"]
    cluster["insecure-skip-tls-verify"] = True
    yield


@contextlib.asynccontextmanager
async def behind_a_proxy(config: dict[str, Any], _: ControlPlane) -> AsyncIterator[None]:
    """Only the proxy knows the way to the server."""
    cluster = config["clusters"][0]["cluster"]
    address = urlsplit(cluster["server"])
    with forward_proxy(address.netloc) as proxy:
        cluster |= {
            "server": f"https://api.invalid:{address.port}",
            "proxy-url": f"http://127.0.0.1:{proxy.port}",
            "tls-server-name": "kubernetes.default.svc",
        }
        yield
        assert proxy.hosts == {"api.invalid"}


@contextlib.asynccontextmanager
async def as_somebody_else(config: dict[str, Any], plane: ControlPlane) -> AsyncIterator[None]:
    """The user of the certificate may do nothing but impersonate an administrator."""
    role = ("clusterrole", "impersonator", "--verb=impersonate", "--resource=users,groups")
    kubectl(plane.kubeconfig, "create", *role)
    binding = ("clusterrolebinding", "impersonator", "--clusterrole=impersonator", "--user=deputy")
    kubectl(plane.kubeconfig, "create", *binding)
    plane.client("deputy", "/CN=deputy")
    files = {f"client-{kind}": str(plane.authority.folder / f"deputy.{end}")
             for kind, end in (("certificate", "crt"), ("key", "key"))}  # fmt: skip
    config["users"][0]["user"] = {**files, "as": "jane", "as-groups": ["others", "system:masters"]}
    yield
    kubectl(plane.kubeconfig, "delete", "clusterrole,clusterrolebinding", "impersonator")


WAYS_IN = (under_another_name, without_its_authority, behind_a_proxy, as_somebody_else)
"""Each changes a kubeconfig so that its server is reached in one way only."""
