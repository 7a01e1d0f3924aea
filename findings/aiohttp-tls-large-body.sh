#!/usr/bin/env bash
# What it shows: a request with a body of 1 MB over TLS makes its connection of aiohttp larger by
#   1 MiB and more for as long as it lives, because OpenSSL keeps the room that the longest message
#   took. The pool hands out the connection that was idle for longest, so requests that follow one
#   another make all idle connections larger in turn, and memory looks as if it leaked by request.
#   No Python object holds it: the garbage collector cannot show it. Closing the connections frees it.
# Why it matters: a service that once had many requests under way, and sends a large one now and
#   then, grows by the product of both.
# Versions: aiohttp 3.14.5, trustme 1.2.1, Python 3.11.
# Seen: 2026-11-30.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" aiohttp==3.14.5 trustme==1.2.1

cat >"$folder/show.py" <<'PYTHON'
"""Open sixteen connections, send a large body sixteen times, and close them; a server in another process."""
import asyncio
import ctypes
import gc
import importlib.metadata
import multiprocessing
import ssl
import sys

import aiohttp
import trustme
from aiohttp import web

CONNECTIONS, BODY = 16, b"x" * 1_000_000


class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def allocated() -> float:
    """Return what the process has taken from malloc and not given back, in MiB."""
    gc.collect()
    libc = ctypes.CDLL("libc.so.6")
    libc.mallinfo2.restype = Mallinfo
    info = libc.mallinfo2()
    return (info.uordblks + info.hblkhd) / 2**20


def serve(authority: trustme.CA, pipe) -> None:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(0.2 if request.path == "/slow" else 0)
        return web.Response(text=str(request.transport.get_extra_info("peername")[1]))

    async def run() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        pipe.send(site._server.sockets[0].getsockname()[1])
        await asyncio.sleep(60)

    asyncio.run(run())


async def send(authority: trustme.CA, port: int, **headers: str) -> tuple[int, float, float]:
    """Return how many connections served the bodies, and what is left before and after the end."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    url = f"https://127.0.0.1:{port}/"

    async def post(path: str, body: bytes, **headers: str) -> str:
        async with session.post(url + path, data=body, ssl=context, headers=headers) as answer:
            return await answer.text()

    start = allocated()
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(post("slow", b"small") for _ in range(CONNECTIONS)))
        before = allocated()
        ports = {await post("", BODY, **headers) for _ in range(CONNECTIONS)}
        grown = allocated() - before
    await asyncio.sleep(0.5)
    return len(ports), grown, allocated() - start


authority = trustme.CA()
ours, theirs = multiprocessing.Pipe()
server = multiprocessing.Process(target=serve, args=(authority, theirs), daemon=True)
server.start()
port = ours.recv()
asyncio.run(send(authority, port, Connection="close"))  # what is allocated once
kept, closed = (asyncio.run(send(authority, port, **headers)) for headers in ({}, {"Connection": "close"}))
server.kill()
print("aiohttp", importlib.metadata.version("aiohttp"), "Python", sys.version.split()[0], ssl.OPENSSL_VERSION)
for name, (served, grown, left) in {"kept": kept, "closed after each": closed}.items():
    print(f"connections {name}: {served} served 16 bodies of 1 MB; {grown:.1f} MiB more, {left:.1f} MiB after the end")
if kept[0] != CONNECTIONS or kept[1] < 12 or kept[2] > 2:
    sys.exit("changed: connections that have sent a large body do not keep its size any more")
if closed[1] > 3:
    sys.exit("changed: closed connections keep memory")
print("as described: each connection keeps the room of its largest message")
PYTHON
"$python" "$folder/show.py" 2>"$folder/err" || { cat "$folder/err" >&2; exit 1; }
