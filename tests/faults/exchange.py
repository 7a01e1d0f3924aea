"""What the proxy sees of one request, and which of them are writes of the operator."""

from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qs, unquote, urlsplit

_REVIEWS = ("selfsubjectaccessreviews", "selfsubjectreviews")


@dataclass(frozen=True)
class Exchange:
    """A request, for the API server or for S3."""

    method: str
    target: str
    """Path and query, as they were sent."""
    body: bytes
    at: float
    """When it came, by the monotonic clock."""

    @cached_property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @cached_property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def is_watch(self) -> bool:
        return self.method == "GET" and self.query.get("watch", [""])[0] in ("1", "true")

    @property
    def is_read(self) -> bool:
        return self.method in ("GET", "HEAD") and not self.is_watch

    @property
    def is_lease(self) -> bool:
        return "/leases" in self.path

    @property
    def is_write(self) -> bool:
        """Whether it changes something, the lease apart."""
        if self.method in ("GET", "HEAD") or self.is_lease or self.is_sts:
            return False
        return self.path.rpartition("/")[2] not in _REVIEWS

    @property
    def is_sts(self) -> bool:
        """Whether it asks S3 for credentials."""
        return self.method == "POST" and self.path == "/"

    def is_about(self, plural: str) -> bool:
        """Whether it is about objects of one kind."""
        return plural in self.path.split("/")

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Seen:
    """A request that came, and what became of it."""

    exchange: Exchange
    status: int = 0
    """What the server, or a fault in its place, has answered; 0: nothing."""
    answered: float = 0.0
    """When the server had answered; 0.0: it has not been asked, or is silent."""

    @property
    def executed(self) -> bool:
        """Whether the server has done what was asked."""
        return bool(self.answered) and self.status < 300
