"""Storage in memory, for tests of what is read and written."""

from collections.abc import Iterator

from flashrun.store_errors import Unavailable
from flashrun.store_listing import Entry


class Memory:
    """Storage that holds these objects."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.away: set[str] = set()

    def list(self, prefix: str) -> Iterator[Entry]:
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield Entry(key, len(self.objects[key]), "", None)

    def get_bytes(self, key: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        if key in self.away:
            raise Unavailable("storage is away")
        return self.objects[key][offset:]
