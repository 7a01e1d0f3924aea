"""Errors that calls to S3 storage raise.

The module imports nothing, so that a caller can name an error without loading the client.
"""


class StoreError(Exception):
    """A call to storage failed; ``str`` is one sentence that names the endpoint and the key."""

    temporary = False
    """Whether the same call may succeed later without any change by a person."""

    def __init__(self, message: str, *, temporary: bool | None = None) -> None:
        super().__init__(message)
        if temporary is not None:
            self.temporary = temporary


class KeyNotFound(StoreError):
    """The key does not exist."""


class KeyExists(StoreError):
    """A key that was to be created exists already."""


class StorageForbidden(StoreError):
    """The credentials are not accepted, or do not allow this call."""


class Unauthorized(StorageForbidden):
    """The credentials are not accepted for any key; whether this key exists stays unknown."""


class Unavailable(StoreError):
    """The store cannot be reached, or is overloaded."""

    temporary = True


class WritesEnded(StoreError):
    """This process may not write any more; nothing was sent."""

    temporary = True


class WriteConflict(Unavailable):
    """A conditional write met another one of the same key in flight; the next try knows."""


class Unsuitable(StoreError):
    """The store answers, and lacks something that runs need."""


class Corrupt(StoreError):
    """The content that was read differs from what its manifest or its schema promises."""
