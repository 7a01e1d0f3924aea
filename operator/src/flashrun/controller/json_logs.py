"""JSON log lines without secrets.

Request and response bodies are never logged. Text that looks like a credential, for example in the
error message of a library, is removed from every line. A line about a run names it and its uid.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

from typing_extensions import override

from flashrun.api.secret_patterns import redact_secrets

_QUIET: Final = ("kopf", "aiohttp.access", "urllib3")


_subject: Final[ContextVar[Mapping[str, str] | None]] = ContextVar("subject", default=None)
"""What the lines are about that are logged now: ``run`` and ``uid``."""


@contextmanager
def about(run: str, uid: str = "") -> Iterator[None]:
    """Let every line that is logged inside name the run, as ``namespace/name``, and its uid.

    Without a uid, ``note_uid`` gives it later.
    """
    token = _subject.set({"run": run, "uid": uid})
    try:
        yield
    finally:
        _subject.reset(token)


def note_uid(uid: str) -> None:
    """Let the following lines inside ``about`` name the uid of the run."""
    if subject := _subject.get():
        _subject.set({**subject, "uid": uid})


class _Lines(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact_secrets(record.getMessage()),
        }
        line |= {name: value for name, value in (_subject.get() or {}).items() if value}
        if record.exc_info:
            line["error"] = redact_secrets(self.formatException(record.exc_info))
        return json.dumps(line)


def set_up(level: str = "INFO") -> None:
    """Write the lines of all loggers to standard output as JSON; libraries only from WARNING on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # kopf would warn that its thread cannot handle signals; this process handles them itself.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
