#!/usr/bin/env bash
# What it shows: a kubeconfig with tls-server-name, for an API server that is reached by an address
#   its certificate does not name (a tunnel, a load balancer). kubernetes.aio obeys the key in API
#   calls and forgets it in WebSockets: listing pods works, an exec into one of them is refused for
#   the certificate's name. The synchronous half obeys it in both.
# Why it matters: logs and lists work, so the kubeconfig looks right; exec and port-forward fail.
# Versions: kubernetes 37.0.2, aiohttp 3.14.5, trustme 1.2.1, Python 3.11.
# Seen: 2026-11-29.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" kubernetes==37.0.2 aiohttp==3.14.5 trustme==1.2.1

cat >"$folder/show.py" <<'PYTHON'
"""An API server whose certificate names api.cluster.example, reached by its address."""
import asyncio
import importlib.metadata
import json
import ssl
import sys
from pathlib import Path

import kubernetes.aio.client
import kubernetes.aio.config
import kubernetes.aio.stream
import kubernetes.client
import kubernetes.config
import kubernetes.stream
import trustme
from aiohttp import ClientConnectorCertificateError, web

folder = Path(sys.argv[1])
authority = trustme.CA()
authority.cert_pem.write_to_path(str(folder / "ca.pem"))


async def list_pods(_: web.Request) -> web.Response:
    return web.json_response({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []})


async def run_command(request: web.Request) -> web.WebSocketResponse:
    """Answer an exec: "hello" on standard output, then success on the error channel."""
    socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
    await socket.prepare(request)
    await socket.send_bytes(b"\x01hello")
    await socket.send_bytes(b"\x03" + json.dumps({"status": "Success"}).encode())
    await socket.close()
    return socket


async def serve() -> int:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.cluster.example").configure_cert(context)
    application = web.Application()
    application.router.add_get("/api/v1/namespaces/default/pods", list_pods)
    application.router.add_get("/api/v1/namespaces/default/pods/one/exec", run_command)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    return runner.addresses[0][1]


def synchronous(kubeconfig: str) -> tuple[str, str]:
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(kubeconfig, client_configuration=configuration)
    api = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))
    listed = api.list_namespaced_pod("default").kind
    said = kubernetes.stream.stream(
        api.connect_get_namespaced_pod_exec, "one", "default", command=["true"],
        stdin=False, stdout=True, stderr=True, tty=False,
    )
    return listed, said


async def asynchronous(kubeconfig: str) -> tuple[str, str]:
    configuration = kubernetes.aio.client.Configuration()
    await kubernetes.aio.config.load_kube_config(kubeconfig, client_configuration=configuration)
    async with kubernetes.aio.client.ApiClient(configuration) as client:
        listed = (await kubernetes.aio.client.CoreV1Api(client).list_namespaced_pod("default")).kind
    async with kubernetes.aio.stream.WsApiClient(configuration) as client:
        try:
            said = await kubernetes.aio.client.CoreV1Api(client).connect_get_namespaced_pod_exec(
                "one", "default", command=["true"],
                stdin=False, stdout=True, stderr=True, tty=False,
            )
        except ClientConnectorCertificateError as error:
            said = f"refused: {error.certificate_error}"
    return listed, said


async def main() -> None:
    port = await serve()
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {
            "server": f"https://127.0.0.1:{port}",
            "certificate-authority": str(folder / "ca.pem"),
            "tls-server-name": "api.cluster.example",
        }}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "users": [{"name": "me", "user": {"token": "any"}}],
    }))
    print("kubernetes", importlib.metadata.version("kubernetes"))
    first = await asyncio.to_thread(synchronous, str(kubeconfig))
    print("kubernetes:     list", first[0], "- exec", first[1])
    second = await asynchronous(str(kubeconfig))
    print("kubernetes.aio: list", second[0], "- exec", second[1])
    if first != ("PodList", "hello"):
        sys.exit("changed: the synchronous client does not obey tls-server-name any more")
    if second[0] != "PodList" or not second[1].startswith("refused:"):
        sys.exit("changed: kubernetes.aio obeys tls-server-name in WebSockets, or in neither")
    print("as described: kubernetes.aio forgets tls-server-name where it opens a WebSocket")


asyncio.run(main())
PYTHON
"$python" "$folder/show.py" "$folder"
