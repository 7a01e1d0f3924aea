"""Bearer tokens of the API server that are valid for seconds, and an exec plugin that gives them.

A token says itself when it ends. The API server asks a webhook about each one, as it does where
tokens come from outside: the tokens that it signs itself are valid for ten minutes at least.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.json_server import serve_json

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

    def answer(_: str, review: Any) -> dict[str, Any]:
        valid = tokens.check(review["spec"]["token"])
        user = {"username": "person", "groups": ["system:masters"]}
        status = {"authenticated": True, "user": user} if valid else {"authenticated": False}
        return {"apiVersion": review["apiVersion"], "kind": review["kind"], "status": status}

    with serve_json(answer) as port:
        address = f"http://127.0.0.1:{port}/"
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
        yield tokens
