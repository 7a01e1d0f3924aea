"""The platform as it was last seen, cached so that checks work without a cluster.

``flash train --dry-run`` does not connect, but it has to know the models that an installation adds.
Commands that do connect save the platform's public ConfigMap here.
"""

import contextlib
import os
from pathlib import Path

from pydantic import ValidationError

from flashrun.api.public import PublicPlatform


def load_platform() -> PublicPlatform:
    """Return the platform that was saved last; an empty one when nothing was saved."""
    try:
        return PublicPlatform.read(_path().read_bytes())
    except (OSError, ValidationError):
        return PublicPlatform()


def save_platform(platform: PublicPlatform) -> None:
    """Save the platform; does nothing when the cache folder is not writable."""
    with contextlib.suppress(OSError):
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(platform.model_dump_json(by_alias=True))


def cache_folder() -> Path:
    """Return the folder of everything that is cached on this machine."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "flashrun"


def _path() -> Path:
    return cache_folder() / "platform.json"
