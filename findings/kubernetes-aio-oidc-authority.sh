#!/usr/bin/env bash
# What it shows: a kubeconfig whose user signs in by OpenID Connect, at a provider with a certificate
#   of a company's own authority (idp-certificate-authority-data). The token has expired.
#   kubernetes (synchronous) gets a new one and goes on; kubernetes.aio, the asynchronous half of the
#   same package, hands the name of a file to aiohttp, which wants a TLS context: TypeError.
# Why it matters: commands work until the token ends, about an hour, and then show a traceback.
# Versions: kubernetes 37.0.2, aiohttp 3.14.5, requests-oauthlib 2.0.0, trustme 1.2.1, Python 3.11.
# Seen: 2026-11-30.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" \
  kubernetes==37.0.2 aiohttp==3.14.5 requests-oauthlib==2.0.0 trustme==1.2.1

cat >"$folder/show.py" <<'PYTHON'
"""A provider of OpenID Connect on loopback, and two clients with an expired token."""
import asyncio
import base64
import importlib.metadata
import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import kubernetes.aio.client
import kubernetes.aio.config
import kubernetes.client
import kubernetes.config
import trustme

folder = Path(sys.argv[1])
ca = trustme.CA()


def token(seconds: int) -> str:
    """An unsigned JSON web token that ends in ``seconds``: only the provider would check it."""
    parts = ({"alg": "none"}, {"exp": int(time.time()) + seconds}, {})
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts)
    return ".".join(part.decode().rstrip("=") for part in encoded)


NEW = token(3600)
AUTHORITY = base64.b64encode(ca.cert_pem.bytes()).decode()


class Provider(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer({"token_endpoint": f"https://{self.headers['Host']}/token"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({"id_token": NEW, "refresh_token": "next", "access_token": "a",
                     "token_type": "Bearer", "expires_in": 3600})

    def answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve() -> str:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"https://127.0.0.1:{server.server_port}"


def write_kubeconfig(issuer: str, name: str) -> str:
    path = folder / name
    user = {"name": "oidc", "config": {
        "idp-issuer-url": issuer, "client-id": "cluster", "client-secret": "any",
        "id-token": token(-3600), "refresh-token": "first",
        "idp-certificate-authority-data": AUTHORITY,
    }}
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "users": [{"name": "me", "user": {"auth-provider": user}}],
    }))
    return str(path)


def synchronous(kubeconfig: str) -> str:
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(kubeconfig, client_configuration=configuration)
    sent = configuration.api_key["BearerToken"]
    return "a new token" if sent == f"Bearer {NEW}" else "another token"


async def asynchronous(kubeconfig: str) -> str:
    configuration = kubernetes.aio.client.Configuration()
    try:
        await kubernetes.aio.config.load_kube_config(
            kubeconfig, client_configuration=configuration
        )
    except TypeError as error:
        return f"TypeError: {error}"
    return "no error"


print("kubernetes", importlib.metadata.version("kubernetes"))
issuer = serve()
first = synchronous(write_kubeconfig(issuer, "first"))
second = asyncio.run(asynchronous(write_kubeconfig(issuer, "second")))
print("kubernetes:    ", first)
print("kubernetes.aio:", second)
if first != "a new token":
    sys.exit("changed: the synchronous client gets no new token any more")
if not second.startswith("TypeError:"):
    sys.exit("changed: kubernetes.aio asks a provider with an authority of its own")
print("as described: kubernetes.aio cannot renew a token at a provider with its own authority")
PYTHON
"$python" "$folder/show.py" "$folder"
