"""Errors that calls to the Kubernetes API raise.

The module imports nothing, so that a caller can name an error without loading the client.
"""


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


class Unreachable(ClusterError):
    """The API server did not answer, or answered that it is overloaded."""

    temporary = True


class NoCluster(ClusterError):
    """There is no kubeconfig, or the kubeconfig is not usable."""
