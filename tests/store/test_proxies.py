"""Which requests go through a proxy, and storage through real ones: plain, and with TLS inside."""

import ssl
from pathlib import Path

import pytest

from flashrun.proxies import Proxy, environment_proxy, storage_proxy
from flashrun.store import Store, TimeLimits
from flashrun.store_errors import StoreError, Unavailable
from localcluster.pki import Authority
from tests.servers import MINIO_DOMAIN, Minio
from tests.store.forward_proxy import forward_proxy
from tests.store.small_s3 import small_s3

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# What golang.org/x/net/http/httpproxy 0.58, which kubectl asks, answers for each row.
DIRECT = {
    "a host": ("https://s3.example.com", "s3.example.com"),
    "a host below it": ("https://a.s3.example.com", "s3.example.com"),
    "a domain": ("https://s3.example.com", ".example.com"),
    "a domain with a star": ("https://s3.example.com", "*.example.com"),
    "another case": ("https://S3.example.com", "Example.COM"),
    "everything": ("https://s3.example.com", "*"),
    "everything in a list": ("https://s3.example.com", "other.example, *"),
    "a host with a port": ("https://s3.example.com:9000", "s3.example.com:9000"),
    "the port of https": ("https://s3.example.com", "s3.example.com:443"),
    "a domain with a port": ("https://s3.example.com:9000", ".example.com:9000"),
    "a domain with a star and a port": ("https://s3.example.com:9000", "*.example.com:9000"),
    "an address": ("https://10.1.2.3", "10.1.2.3"),
    "an address with a port": ("https://10.1.2.3:9000", "10.1.2.3:9000"),
    "an address of IPv6": ("https://[fd00::7]:9000", "FD00:0::7"),
    "an address of IPv6 with a port": ("https://[fd00::7]:9000", "[fd00::7]:9000"),
    "an address written as one of IPv6": ("https://[::ffff:10.1.2.3]", "10.1.2.3"),
    "a network": ("https://10.1.2.3:9000", "192.168.0.0/16, 10.0.0.0/8"),
    "a network that an address names": ("https://10.1.2.3", "10.1.2.9/24"),
    "a network of IPv6": ("https://[fd00::7]", "fd00::/8"),
    "a name in another alphabet": ("https://xn--mnchen-3ya.example", "*.example,münchen.example"),
}
PROXIED = {
    "the domain itself": ("https://example.com", ".example.com"),
    "the domain itself, with a star": ("https://example.com", "*.example.com"),
    "a name that ends like it": ("https://notexample.com", "example.com"),
    "another port": ("https://s3.example.com:9000", "s3.example.com:443"),
    "another port of a domain": ("https://s3.example.com", "*.example.com:9000"),
    "another port of an address": ("https://10.1.2.3", "10.1.2.3:9000"),
    "another port of IPv6": ("https://[fd00::7]", "[fd00::7]:9000"),
    "a star elsewhere": ("https://s3.example.com", "s3.*, *com"),
    "an address of which names are the end": ("https://10.1.2.3", "2.3, .2.3"),
    "a name, and a network": ("https://s3.example.com", "0.0.0.0/0, ::/0"),
    "a network with a mask": ("https://10.1.2.3", "10.0.0.0/255.0.0.0, 10.0.0.0/33"),
    "nothing": ("https://s3.example.com", " ,,:443,.,*."),
}


@pytest.mark.parametrize(
    ("server", "no_proxy", "proxy"),
    [*((*row, None) for row in DIRECT.values()), *((*row, PROXY) for row in PROXIED.values())],
    ids=[*DIRECT, *PROXIED],
)
def test_no_proxy_lists_what_needs_none(
    monkeypatch: pytest.MonkeyPatch, server: str, no_proxy: str, proxy: str | None
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    assert environment_proxy(server) == PROXY
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert environment_proxy(server) == proxy


def test_a_port_that_is_not_named_is_that_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", "s3.example.com:80")
    assert environment_proxy("http://s3.example.com") is None
    assert environment_proxy("http://s3.example.com:443") == PROXY


def test_variables_in_capitals_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://other.example:1")
    assert environment_proxy("https://s3.example.com") == "http://other.example:1"
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    assert environment_proxy("https://s3.example.com") == PROXY


NEAR = ["127.0.0.1:9000", "[::1]:9000", "localhost:9000", "minio:9000", "minio.storage.svc:9000"]


@pytest.mark.parametrize("place", NEAR)
def test_no_proxy_stands_before_storage_on_this_machine_or_inside_the_cluster(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    assert storage_proxy(f"http://{place}") is None
    assert storage_proxy("http://s3.example.com") == Proxy(PROXY)


@pytest.mark.parametrize("place", ["127.0.0.1:6443", "127.3.2.1:6443", "[::1]:6443", "localhost"])
def test_no_proxy_stands_before_an_api_server_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """As with kubectl, for clusters inside containers of this machine."""
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    assert environment_proxy(f"https://{place}") is None
    assert environment_proxy("https://api:6443") == PROXY


def test_a_proxy_without_a_scheme_is_one_of_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "me:hush@proxy.example:3128")
    assert environment_proxy("https://api.test") == "http://me:hush@proxy.example:3128"
    assert storage_proxy("https://s3.example.com") == Proxy(PROXY, "me:hush")


def test_a_proxy_of_another_protocol_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, minio: Minio
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks5://user:hush@127.0.0.1:1080")
    access = minio.access("any-bucket")
    Store(access)  # it needs no proxy
    with pytest.raises(StoreError, match="socks5:// in HTTP_PROXY is not supported") as no:
        Store(access.replace(endpoint="http://s3.flashrun.test"))
    assert "hush" not in str(no.value)
    assert not no.value.temporary


def test_user_and_password_of_a_proxy_are_apart_from_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:a%40b@proxy.example:3128")
    proxy = storage_proxy("https://s3.example.com")
    assert proxy == Proxy(PROXY, "me:a@b")
    assert proxy.user_headers == {"proxy-authorization": "Basic bWU6YUBi"}


def test_storage_is_reached_through_a_proxy_with_the_bucket_in_the_host_name(
    monkeypatch: pytest.MonkeyPatch, minio: Minio
) -> None:
    """Only the proxy knows the host name, so nothing goes past it."""
    minio.store("by-host-name")
    access = minio.access("by-host-name").replace(
        endpoint=f"http://{MINIO_DOMAIN}", addressing="virtual"
    )
    with forward_proxy(minio.endpoint.removeprefix("http://")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:hush@127.0.0.1:{proxy.port}")
        store = Store(access)
        store.put_bytes("a/b", b"content")
        assert store.get_bytes("a/b") == b"content"
        assert [entry.key for entry in store.list("a/")] == ["a/b"]
    assert proxy.hosts == {f"by-host-name.{MINIO_DOMAIN}"}
    assert proxy.users == {"Basic dXNlcjpodXNo"}


def test_storage_with_a_private_ca_is_reached_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    authority.create()
    leaf = authority.leaf("s3", "/CN=s3", ["DNS:s3.flashrun.test"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate, leaf.key)
    limits = TimeLimits(total=1.0)
    with small_s3(tls=context) as s3, forward_proxy(s3.url.removeprefix("https://")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        access = s3.access.replace(endpoint="https://s3.flashrun.test")
        with pytest.raises(Unavailable, match="a private CA goes into the CA bundle"):
            Store(access, limits).put_bytes("key", b"1")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        Store(access).put_bytes("key", b"1")
        assert s3.objects == {"key": b"1"}
    assert proxy.hosts == {"s3.flashrun.test"}


def test_a_proxy_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch, minio: Minio) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    access = minio.access("any-bucket").replace(endpoint="http://s3.flashrun.test")
    with pytest.raises(Unavailable, match="the proxy of HTTPS_PROXY or HTTP_PROXY did not connect"):
        Store(access, TimeLimits(total=0.2)).put_bytes("key", b"1")
