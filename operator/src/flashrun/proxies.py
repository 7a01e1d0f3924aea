"""The proxies that ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` name.

Python's own functions read these variables, but not the networks in ``NO_PROXY`` (10.0.0.0/8),
which other programs read.
"""

import ipaddress
import urllib.parse
import urllib.request
from typing import NamedTuple, Self

from urllib3.util import make_headers

from flashrun.api.storage_endpoint import in_cluster_service


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
    proxies = urllib.request.getproxies()
    if not url.hostname or urllib.request.proxy_bypass(url.netloc.rpartition("@")[2]):
        return None
    if _is_this_machine(url.hostname) or _is_in_network(url.hostname, proxies.get("no", "")):
        return None
    return usable_proxy(proxies.get(url.scheme), f"{url.scheme.upper()}_PROXY")


def usable_proxy(address: str | None, source: str) -> str | None:
    """Return the address of a proxy with its scheme; ``source`` names it.

    Raises:
        ValueError: it speaks another protocol than HTTP.
    """
    if not address:
        return None
    scheme, separator, _ = address.partition("://")
    if not separator:
        return f"http://{address}"
    if scheme.lower() not in ("http", "https"):
        raise ValueError(
            f"{scheme}:// in {source} is not supported: a proxy of http:// or https:// is needed"
        )
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


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_near(host: str) -> bool:
    """Return whether ``host`` is this machine, or a name that only one network knows."""
    return _is_this_machine(host) or ("." not in host and ":" not in host)


def _is_in_network(host: str, no_proxy: str) -> bool:
    """Return whether the address ``host`` is in a network that ``no_proxy`` lists."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in no_proxy.split(","):
        try:
            if address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
