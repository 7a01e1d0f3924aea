"""Errors that calls to the Kubernetes API raise.

The module imports no client, so that a caller can name an error without loading it.
"""

from typing import Any


class ClusterError(Exception):
    """A call to the Kubernetes API failed; ``str`` is one sentence for people."""

    temporary = False
    """Whether the same call may succeed later without any change by a person."""


class NotFound(ClusterError):
    """The object, its namespace or its kind does not exist."""


class AlreadyExists(ClusterError):
    """An object that was to be created exists already."""


class Conflict(ClusterError):
    """Someone else changed the object since it was read."""

    temporary = True


class Forbidden(ClusterError):
    """The credentials are not accepted, or do not allow this call."""


class Invalid(ClusterError):
    """The API server refuses the object; the sentence names the fields."""


class TooLarge(Invalid):
    """An answer is larger than its reader accepts; the sentence says by which bound."""

    def __init__(
        self, sentence: str, head: bytes = b"", known: dict[str, Any] | None = None
    ) -> None:
        super().__init__(sentence)
        self.head = head
        """How the answer begins."""
        self.known = known
        """What could be read of the object; None: nothing."""


class Unreachable(ClusterError):
    """The API server did not answer, or answered that it is overloaded."""

    temporary = True


class NoCluster(ClusterError):
    """There is no kubeconfig, or the kubeconfig is not usable."""
