"""The platform as it was last seen, kept on this machine so that checks work without a cluster.

``flash train --dry-run`` opens no connection, yet it should know the models that an installation
adds. Commands that do talk to a cluster leave a copy of its public ConfigMap here.
"""

import contextlib
import os
from pathlib import Path

from pydantic import ValidationError

from flashrun.api.public import PublicPlatform


def platform() -> PublicPlatform:
    """Return the platform that was seen last; an empty one before the first time."""
    try:
        return PublicPlatform.model_validate_json(_path().read_bytes())
    except (OSError, ValidationError):
        return PublicPlatform()


def remember(seen: PublicPlatform) -> None:
    """Keep ``seen`` for later; a machine without a writable cache only knows less."""
    with contextlib.suppress(OSError):
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(seen.model_dump_json(by_alias=True))


def _path() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "flashrun" / "platform.json"
