"""Kubeconfigs that tests write, and a server that is reached under another name."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml


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
