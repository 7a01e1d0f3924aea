"""Text that others wrote, as a terminal can show it: it can neither steer the terminal nor hide."""

import json
import re
from typing import Any, Final

_ESCAPE_SEQUENCES: Final = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"  # control sequences, such as colours and cursor moves
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)"  # titles, links
    "|\x1b[ -/]*[0-Z\\\\^-~]"
)
"""The sequences of ECMA-48 that begin with ESC or with one of the control characters of C1."""


def printable_text(value: Any) -> str:
    """Return ``value`` as text that a terminal only shows: line ends stay, other codes go.

    The environment, the model or a pod wrote it, so escape sequences and marks that change the
    direction of writing are left out.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if text.isprintable():
        return text
    text = _ESCAPE_SEQUENCES.sub("", text.replace("\r\n", "\n"))
    return "".join(
        character if character in "\n\t" or character.isprintable() else " " * character.isspace()
        for character in text
    )


def printable_line(value: Any) -> str:
    """Return ``value`` as printable text in one line."""
    return " ".join(printable_text(value).split())
