"""OpenID Connect tokens of a kubeconfig, with a provider on loopback that takes a token once."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from flashrun.cluster_errors import NoCluster
from flashrun.kubeconfig import Kubeconfig
from localcluster.pki import Authority
from tests.kubeconfigs import read_config, write_config


def token(seconds: float | None = None, **claims: Any) -> str:
    """Return a token that ends in so many seconds; None: it does not say."""
    ends = {} if seconds is None else {"exp": time.time() + seconds}
    body = base64.urlsafe_b64encode(json.dumps(claims | ends).encode()).decode().rstrip("=")
    return f"head.{body}.signature"


@dataclass
class Provider:
    """What the provider knows, and what it was asked."""

    authority: Authority
    issuer: str = ""
    refresh_token: str = "refresh-0"
    """The only one that it takes."""
    lifetime: float = 3600
    changes: dict[str, Any] = field(default_factory=dict)
    """What is otherwise in its answers."""
    asked: list[dict[str, str]] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)

    def answer(self, form: dict[str, str], secret: str) -> tuple[int, dict[str, Any]]:
        self.asked.append(form)
        self.secrets.append(secret)
        if form["refresh_token"] != self.refresh_token:
            return 400, {"error": "invalid_grant", "error_description": "it was used before"}
        self.refresh_token = f"refresh-{len(self.asked)}"
        answer = {"id_token": self.newest(), "refresh_token": self.refresh_token}
        return 200, answer | self.changes

    def newest(self) -> str:
        return token(self.lifetime, number=len(self.asked))

    def user(self, **config: str) -> dict[str, Any]:
        """The user of a kubeconfig who logs in here."""
        given = {
            "idp-issuer-url": self.issuer,
            "idp-certificate-authority": str(self.authority.certificate),
            "client-id": "flash",
            "client-secret": "s3cret",
            "id-token": token(-60),
            "refresh-token": self.refresh_token,
        }
        kept = {key: value for key, value in (given | config).items() if value}
        return {"auth-provider": {"name": "oidc", "config": kept}}


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    authority = Authority(tmp_path / "pki")
    authority.create()
    leaf = authority.leaf("provider", "/CN=provider", ["IP:127.0.0.1"])
    made = Provider(authority)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

        def do_GET(self) -> None:
            self.send(200, {"token_endpoint": f"{made.issuer}/token"})

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            secret = self.headers.get("Authorization", "").removeprefix("Basic ")
            words = {key: values[0] for key, values in form.items()}
            self.send(*made.answer(words, base64.b64decode(secret).decode()))

        def send(self, code: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate, leaf.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        made.issuer = f"https://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def kept(config: Path) -> dict[str, str]:
    """What is in the kubeconfig now."""
    found: dict[str, str] = read_config(config)["users"][0]["user"]["auth-provider"]["config"]
    return found


async def test_a_token_that_has_not_ended_is_used(provider: Provider, tmp_path: Path) -> None:
    held = token(3600, sub="jane")
    config = write_config(tmp_path / "c", "http://x", provider.user(**{"id-token": held}))
    login = await Kubeconfig.load(str(config))
    await login.refresh()

    assert login.connection.authorization == f"Bearer {held}"
    assert provider.asked == []


async def test_a_token_that_has_ended_is_renewed_and_kept_for_the_next_command(
    provider: Provider, tmp_path: Path
) -> None:
    """A refresh token is good for one time: whoever does not keep the next one is locked out."""
    config = write_config(tmp_path / "c", "http://x", provider.user())
    config.write_text("# written by hand\n" + config.read_text())
    config.chmod(0o600)
    first = await Kubeconfig.load(str(config))
    second = await Kubeconfig.load(str(config))

    assert first.connection.authorization == f"Bearer {kept(config)['id-token']}"
    assert second.connection == first.connection
    assert provider.asked == [{"grant_type": "refresh_token", "refresh_token": "refresh-0"}]
    assert provider.secrets == ["flash:s3cret"]
    assert kept(config)["refresh-token"] == "refresh-1"
    assert config.read_text().startswith("# written by hand\n")
    assert config.stat().st_mode & 0o777 == 0o600


async def test_one_command_outlives_several_tokens(provider: Provider, tmp_path: Path) -> None:
    provider.lifetime = 1  # within the leeway: each request needs another one
    config = write_config(tmp_path / "c", "http://x", provider.user())
    login = await Kubeconfig.load(str(config))
    used = [login.connection.authorization]
    for _ in range(3):
        await login.refresh()
        used.append(login.connection.authorization)
    assert await login.renew()  # the API server has refused the last one

    assert [form["refresh_token"] for form in provider.asked] == [
        f"refresh-{number}" for number in range(5)
    ]
    assert len(set(used)) == 4


async def test_a_public_client_without_a_token_names_itself(
    provider: Provider, tmp_path: Path
) -> None:
    user = provider.user(**{"client-secret": "", "id-token": ""})
    login = await Kubeconfig.load(str(write_config(tmp_path / "c", "http://x", user)))

    assert login.connection.authorization.startswith("Bearer head.")
    assert (provider.asked[0]["client_id"], provider.secrets) == ("flash", [""])


async def test_a_kubeconfig_that_cannot_be_written_costs_no_command(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr("os.replace", refuse)
    config = write_config(tmp_path / "c", "http://x", provider.user())
    login = await Kubeconfig.load(str(config))

    assert login.connection.authorization != f"Bearer {kept(config)['id-token']}"


FAULTS: list[tuple[str, dict[str, str], dict[str, Any], str]] = [
    ("the provider refuses", {"refresh-token": "stolen"}, {},
     "400: invalid_grant: it was used before"),
    ("it answers no token", {}, {"id_token": ""}, "answers no id_token"),
    ("it answers something else", {}, {"id_token": "x"}, "not a JWT"),
    ("it is away", {"idp-issuer-url": "https://127.0.0.1:1"}, {}, "OpenID Connect provider"),
    ("nobody knows its authority", {"idp-certificate-authority": ""}, {},
     "certificate verify failed"),
    ("a token without an end of it", {"id-token": "x", "refresh-token": ""}, {}, "not a JWT"),
    ("no refresh token", {"refresh-token": ""}, {}, "the kubeconfig has no refresh-token"),
    ("no provider is named", {"idp-issuer-url": ""}, {}, "idp-issuer-url. is missing"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "changes", "sentence"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS]
)
async def test_a_token_that_cannot_be_renewed_is_a_sentence(
    provider: Provider,
    tmp_path: Path,
    config: dict[str, str],
    changes: dict[str, Any],
    sentence: str,
) -> None:
    provider.changes = changes
    path = write_config(tmp_path / "c", "http://x", provider.user(**config))
    with pytest.raises(NoCluster, match=f"the kubeconfig cannot be used .*{sentence}"):
        await Kubeconfig.load(str(path))


async def test_a_provider_that_kubectl_does_not_know_either_is_refused_by_name(
    tmp_path: Path,
) -> None:
    user = {"auth-provider": {"name": "gcp", "config": {"access-token": "t"}}}
    with pytest.raises(NoCluster, match="the auth-provider gcp is not supported"):
        await Kubeconfig.load(str(write_config(tmp_path / "c", "http://x", user)))
