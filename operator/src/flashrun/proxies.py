"""The proxies that ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` name.

They are read as kubectl and other programs in Go read them. Python's own functions read them
otherwise: networks (10.0.0.0/8), ``*.example.com`` and the port of an address that names none are
not found, and ``.example.com`` holds for example.com itself.
"""

import ipaddress
import os
import re
import urllib.parse
from typing import Final, NamedTuple, Self, TypeAlias

from urllib3.exceptions import LocationParseError
from urllib3.util import make_headers, parse_url

from flashrun.api.storage_endpoint import in_cluster_service

_PORTS: Final = {"http": "80", "https": "443"}
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxy(NamedTuple):
    """A proxy, without the user and the password in its address."""

    address: str
    user: str = ""

    @classmethod
    def parse(cls, address: str) -> Self:
        """Return the proxy at ``address``, which may name a user and a password."""
        scheme, separator, rest = address.rpartition("://")
        user, _, place = rest.rpartition("@")
        return cls(f"{scheme or 'http'}{separator or '://'}{place}", urllib.parse.unquote(user))

    @property
    def user_headers(self) -> dict[str, str]:
        """The headers with user and password, if there are any."""
        return dict(make_headers(proxy_basic_auth=self.user)) if self.user else {}


def environment_proxy(server: str) -> str | None:
    """Return the proxy for the address ``server`` as the environment names it; None: without.

    As with kubectl, no proxy stands before this machine.

    Raises:
        ValueError: it speaks another protocol than HTTP.
    """
    url = urllib.parse.urlsplit(server)
    if not url.hostname or url.scheme not in _PORTS:
        return None
    port = str(url.port or _PORTS[url.scheme])
    if _is_this_machine(url.hostname) or _is_listed(url.hostname, port, _variable("NO_PROXY")):
        return None
    source = f"{url.scheme.upper()}_PROXY"
    return usable_proxy(_variable(source), source)


def usable_proxy(address: str | None, source: str) -> str | None:
    """Return the address of a proxy with its scheme; ``source`` names it.

    Raises:
        ValueError: it speaks another protocol than HTTP, or its address cannot be read.
    """
    if not address:
        return None
    scheme, separator, _ = address.partition("://")
    if not separator:
        address = f"http://{address}"
    elif scheme.lower() not in ("http", "https"):
        raise ValueError(
            f"{scheme}:// in {source} is not supported: a proxy of http:// or https:// is needed"
        )
    try:
        host = parse_url(address).host
    except LocationParseError:
        host = None
    if not host:  # the address may have a password, and is not repeated
        raise ValueError(f"{source} is not the address of a proxy, such as http://host:port")
    return address


def storage_proxy(endpoint: str) -> Proxy | None:
    """Return the proxy for storage; None for loopback and for a Service inside the cluster.

    A port-forward ends on loopback, and no proxy reaches a Service.

    Raises:
        ValueError: it speaks another protocol than HTTP.
    """
    host = urllib.parse.urlsplit(endpoint).hostname or ""
    if _is_near(host) or in_cluster_service(host) is not None:
        return None
    address = environment_proxy(endpoint)
    return Proxy.parse(address) if address else None


def _variable(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.lower()) or ""


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _is_near(host: str) -> bool:
    """Return whether ``host`` is this machine, or a name that only one network knows."""
    return _is_this_machine(host) or ("." not in host and ":" not in host)


def _is_listed(host: str, port: str, no_proxy: str) -> bool:
    """Return whether an entry of ``no_proxy`` holds for ``host``: ``*``, a network, or a place.

    A place is an address or a name, with a port or without. Names never hold for addresses.
    """
    address, host = _address(host), _in_ascii(host)
    for entry in map(str.strip, no_proxy.lower().split(",")):
        name, wanted_port = _host_and_port(entry)
        if entry == "*":
            return True
        if (network := _network(entry)) is not None:
            holds = address is not None and address in network
        elif (listed := _address(name)) is not None:
            holds = address == listed
        else:
            holds = address is None and _is_within(host, name)
        if holds and wanted_port in ("", port):
            return True
    return False


def _is_within(host: str, name: str) -> bool:
    """Return whether ``host`` is ``name`` or below it; below it, if it begins with a dot."""
    name = _in_ascii(name.removeprefix("*") if name.startswith("*.") else name)
    if name.startswith("."):
        return host.endswith(name)
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _host_and_port(entry: str) -> tuple[str, str]:
    host, colon, port = entry.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not bracketed):
        return entry, ""  # a name, or an address of IPv6
    return host[1:-1] if bracketed else host, port


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if not re.search(r"/[0-9]+$", entry):
        return None
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _in_ascii(name: str) -> str:
    """Return a name as the domain name system knows it."""
    try:
        return name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        return name
