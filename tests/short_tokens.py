"""Bearer tokens of the API server that are valid for seconds, and an exec plugin that gives them.

A token says itself when it ends. The API server asks a webhook about each one, as it does where
tokens come from outside: the tokens that it signs itself are valid for ten minutes at least.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

PLUGIN = """\
#!/bin/sh
# $1: the name in the tokens, $2: seconds
ends=$(($(date +%s) + $2))
cat <<END
{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status":
  {"token": "short.$1.$ends", "expirationTimestamp": "$(date -u -d @$ends +%Y-%m-%dT%H:%M:%SZ)"}}
END
"""


@dataclass
class ShortTokens:
    """The webhook, and what it was asked."""

    folder: Path
    accepted: dict[str, set[str]] = field(default_factory=dict)
    """Name in the tokens → its tokens that were valid when they were used."""
    refused: list[str] = field(default_factory=list)

    @property
    def webhook(self) -> Path:
        """The API server's kubeconfig for the webhook."""
        return self.folder / "webhook.yaml"

    def check(self, token: str) -> bool:
        kind, _, rest = token.partition(".")
        name, _, ends = rest.rpartition(".")
        if kind != "short" or time.time() > int(ends):
            self.refused.append(token)
            return False
        self.accepted.setdefault(name, set()).add(token)
        return True

    def kubeconfig(self, administrator: Path, path: Path, name: str, seconds: int) -> Path:
        """Write a kubeconfig whose user gets tokens of ``seconds`` from the plugin."""
        config = yaml.safe_load(administrator.read_text())
        plugin = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(self.folder / "plugin.sh"),
            "args": [name, str(seconds)],
            "interactiveMode": "Never",
        }
        for user in config["users"]:
            user["user"] = {"exec": plugin}
        path.write_text(yaml.safe_dump(config))
        return path


@contextmanager
def serve_short_tokens(folder: Path) -> Iterator[ShortTokens]:
    """Serve the webhook on loopback until the end of the context."""
    tokens = ShortTokens(folder)
    plugin = folder / "plugin.sh"
    plugin.write_text(PLUGIN)
    plugin.chmod(0o755)

    class Webhook(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            valid = tokens.check(review["spec"]["token"])
            user = {"username": "person", "groups": ["system:masters"]}
            status = {"authenticated": True, "user": user} if valid else {"authenticated": False}
            answer = {"apiVersion": review["apiVersion"], "kind": review["kind"], "status": status}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        place = {"name": "webhook", "cluster": {"server": address}}
        context = {"name": "webhook", "context": {"cluster": "webhook", "user": "api"}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [place],
            "users": [{"name": "api", "user": {}}],
            "contexts": [context],
            "current-context": "webhook",
        }
        tokens.webhook.write_text(yaml.safe_dump(config))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield tokens
        finally:
            server.shutdown()
            thread.join()
