"""The container's main memory, as its control group counts it (cgroup v2).

https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
"""

from pathlib import Path
from typing import Final

_GROUP: Final = Path("/sys/fs/cgroup")
_NOT_FREED: Final = ("anon", "shmem")
"""What the kernel cannot free when memory runs out, unlike its caches of files."""


def used_bytes(group: Path = _GROUP) -> int | None:
    """Return how many bytes the container's processes use; None where nothing can be read."""
    try:
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return sum(int(counts[name]) for name in _NOT_FREED)
    except (OSError, ValueError, KeyError):
        return None


def killed_processes(group: Path = _GROUP) -> int:
    """Return how many processes of the container the kernel has killed for their use of memory."""
    try:
        events = dict(line.split() for line in (group / "memory.events").read_text().splitlines())
        return int(events["oom_kill"])
    except (OSError, ValueError, KeyError):
        return 0


def limit_bytes(group: Path = _GROUP) -> int | None:
    """Return the container's limit; None without one, or where nothing can be read."""
    try:
        return int((group / "memory.max").read_text())
    except (OSError, ValueError):
        return None
