"""The login of a pod: the files of its service account, which the kubelet replaces.

And which authorities a login trusts.
"""

import ssl
from pathlib import Path

import pytest

from flashrun import cluster_login
from flashrun.cluster import Cluster
from flashrun.cluster_async import StreamingClient
from flashrun.cluster_errors import NoCluster
from flashrun.cluster_login import Connection, PodLogin


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mounted files of a service account."""
    for name, text in {"token": "first\n", "namespace": "team\n", "ca.crt": "-"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cluster_login, "_SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return tmp_path


def test_a_pod_finds_its_server_and_its_namespace(account: Path) -> None:
    login = PodLogin.load()

    assert (login.connection.server, login.namespace) == ("https://10.0.0.1:443", "team")
    assert login.connection.ca_path == str(account / "ca.crt")
    assert (login.context, login.connection.authorization) == ("", "Bearer first")


def test_what_is_shown_of_a_connection_has_no_credentials() -> None:
    proxy = "http://user:password@proxy:3128"
    connection = Connection("https://server", authorization="Bearer token", proxy=proxy)

    assert f"{connection} {connection!r}" == " ".join(["Connection(server='https://server')"] * 2)


def test_an_address_of_ipv6_stands_in_brackets(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert PodLogin.load().connection.server == "https://[fd00::1]:443"


async def test_a_proxy_of_a_pod_is_read_as_one_of_a_person(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "")
    assert PodLogin.load().connection.proxy == "http://proxy.example:3128"
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example:1080")
    monkeypatch.setenv("KUBECONFIG", str(account / "none"))
    with pytest.raises(NoCluster, match="socks5:// in HTTPS_PROXY is not supported"):
        await Cluster.login()


async def test_a_token_is_read_again_after_a_while_and_when_it_is_refused(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = PodLogin.load()
    (account / "token").write_text("second")
    await login.refresh()
    assert login.connection.authorization == "Bearer first"
    monkeypatch.setattr(cluster_login, "_TOKEN_SECONDS", -1.0)
    await login.refresh()
    assert login.connection.authorization == "Bearer second"

    assert not await login.renew()
    (account / "token").write_text("third")
    assert await login.renew()
    assert login.connection.authorization == "Bearer third"


async def test_a_token_that_is_gone_is_a_sentence(account: Path) -> None:
    login = PodLogin.load()
    (account / "token").unlink()
    with pytest.raises(NoCluster, match="the token of this pod cannot be read"):
        await login.renew()


async def test_authorities_are_trusted_as_kubectl_trusts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python 3.13 is stricter: it wants an identifier of the key, which many clusters leave out."""
    create = ssl.create_default_context

    def strict(**keywords: str | None) -> ssl.SSLContext:
        context = create(**keywords)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    connection = Connection("https://api.test")
    client = StreamingClient(5.0)
    contexts = [connection.tls_context(), client._client_for(connection).ssl_context]
    await client.close()

    for context in contexts:
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_mode is ssl.CERT_REQUIRED
