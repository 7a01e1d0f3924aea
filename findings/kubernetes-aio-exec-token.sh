#!/usr/bin/env bash
# What it shows: a kubeconfig whose user has an exec plugin. The plugin's token expires after one
#   second and says so. kubernetes (synchronous) runs the plugin again and goes on; kubernetes.aio,
#   the asynchronous half of the same package, keeps the first token and is refused.
# Why it matters: whatever runs longer than a cloud's token (15 to 60 minutes) ends with 401.
# Versions: kubernetes 37.0.2, aiohttp 3.14.5, Python 3.11.
# Seen: 2026-11-29.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" kubernetes==37.0.2 aiohttp==3.14.5

cat >"$folder/plugin.py" <<'PYTHON'
"""An exec plugin: its tokens are 1, 2, 3, … and each expires after one second."""
import datetime
import json
import sys
from pathlib import Path

runs = Path(sys.argv[1])
number = int(runs.read_text()) + 1
runs.write_text(str(number))
ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
print(json.dumps({
    "apiVersion": "client.authentication.k8s.io/v1",
    "kind": "ExecCredential",
    "status": {
        "token": str(number),
        "expirationTimestamp": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
    },
}))
PYTHON

cat >"$folder/show.py" <<'PYTHON'
"""An API server that can expire all tokens made so far, and both halves of the client."""
import asyncio
import http.server
import importlib.metadata
import json
import sys
import threading
import time
from pathlib import Path

import kubernetes.aio.client
import kubernetes.aio.config
import kubernetes.client
import kubernetes.config

folder = Path(sys.argv[1])
runs = folder / "runs"
oldest_valid = 1


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        valid = int(self.headers["Authorization"].removeprefix("Bearer ")) >= oldest_valid
        body = {"apiVersion": "v1", "kind": "NamespaceList", "metadata": {}, "items": []}
        if not valid:
            body = {"apiVersion": "v1", "kind": "Status", "code": 401, "reason": "Unauthorized"}
        self.send_response(200 if valid else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


def begin() -> None:
    global oldest_valid
    runs.write_text("0")
    oldest_valid = 1


def expire_tokens() -> None:
    global oldest_valid
    time.sleep(2)
    oldest_valid = int(runs.read_text()) + 1


def synchronous() -> list[int]:
    begin()
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    api = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))
    answers = [api.list_namespace_with_http_info()[1]]
    expire_tokens()
    try:
        answers.append(api.list_namespace_with_http_info()[1])
    except kubernetes.client.ApiException as error:
        answers.append(error.status)
    return answers


async def asynchronous() -> list[int]:
    begin()
    configuration = kubernetes.aio.client.Configuration()
    await kubernetes.aio.config.load_kube_config(
        str(kubeconfig), client_configuration=configuration
    )
    async with kubernetes.aio.client.ApiClient(configuration) as client:
        api = kubernetes.aio.client.CoreV1Api(client)
        answers = [(await api.list_namespace_with_http_info()).status_code]
        expire_tokens()
        try:
            answers.append((await api.list_namespace_with_http_info()).status_code)
        except kubernetes.aio.client.ApiException as error:
            answers.append(error.status)
    return answers


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
kubeconfig = folder / "kubeconfig"
kubeconfig.write_text(json.dumps({
    "apiVersion": "v1", "kind": "Config", "current-context": "here",
    "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    "users": [{"name": "me", "user": {"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": sys.executable, "args": [str(folder / "plugin.py"), str(runs)],
    }}}],
}))

print("kubernetes", importlib.metadata.version("kubernetes"))
first = synchronous()
print(f"kubernetes:     {first[0]}, after the expiry {first[1]}; the plugin ran {runs.read_text()} times")
second = asyncio.run(asynchronous())
print(f"kubernetes.aio: {second[0]}, after the expiry {second[1]}; the plugin ran {runs.read_text()} times")
if (first, second) != ([200, 200], [200, 401]):
    sys.exit("changed: expected 200, 200 from kubernetes and 200, 401 from kubernetes.aio")
print("as described: kubernetes.aio does not run the exec plugin again")
PYTHON
"$python" "$folder/show.py" "$folder"
