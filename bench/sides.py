"""Shared parts of the comparisons: virtual environments, turns, ratios and results."""

import hashlib
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flashrun" / "bench"


def environment(name: str, requirements: Sequence[str]) -> Path:
    """Return the Python of a virtual environment with ``requirements``; create it if missing."""
    mark = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:12]
    python = CACHE / f"{name}-{mark}" / "bin" / "python"
    if not python.exists():
        uv = ["bash", ROOT / "localcluster" / "uv.sh", sys.prefix]
        subprocess.run([*uv, "venv", "--quiet", "--clear", python.parent.parent], check=True)
        install = [*uv, "pip", "install", "--quiet", "--python", python, *requirements]
        subprocess.run(install, check=True)
    return python


def versions(python: str | Path, *packages: str) -> str:
    """Return the versions of ``python`` and of packages that it imports."""
    program = (
        "import platform, sys; from importlib.metadata import version; "
        "print(', '.join([f'Python {platform.python_version()}', "
        "*(f'{name} {version(name)}' for name in sys.argv[1:])]))"
    )
    done = subprocess.run(
        [python, "-c", program, *packages], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def machine() -> str:
    """Return cores, architecture and load of this machine."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, {platform.machine()}, load {load:.1f} when it ended"


def turns(number: int, names: Iterable[str]) -> list[str]:
    """Return the sides in the order of pair ``number``; the first side alternates."""
    ordered = list(names)
    return ordered[:: 1 if number % 2 else -1]


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median of the ratios of pairs; a disturbance affects both sides of a pair."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def verdict(*sentences: tuple[str, bool]) -> int:
    """Print each sentence and whether it holds; return 1 when one does not hold."""
    for sentence, holds in sentences:
        print(f"{'ok  ' if holds else 'MISS'}  {sentence}")
    return 0 if all(holds for _, holds in sentences) else 1
