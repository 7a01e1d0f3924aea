"""A rollout as text for people: a heading with its scores, the prompt, and the answer."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

_RULE: Final = "─" * 8
_MARGIN: Final = "  "
_ARROW: Final = "→"
"""Before the text that the model wrote."""


def rollout_text(row: Mapping[str, Any], position: int, count: int) -> str:
    """Return one rollout; ``position`` counts from 1 to ``count``."""
    lines = [
        f"{_RULE} {' · '.join(_heading(row, position, count))} {_RULE}",
        *_prompt_lines(row.get("prompt")),
        f"{_ARROW} completion",
        *_indented(row.get("completion")),
    ]
    return "\n".join(lines) + "\n"


def printable_text(value: Any) -> str:
    """Return ``value`` as text that a terminal only shows: line ends stay, other codes go.

    The environment and the model wrote it, so escape sequences and marks that change the direction
    of writing are left out.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    kept = (
        character if character in "\n\t" or character.isprintable() else " " * character.isspace()
        for character in text.replace("\r\n", "\n")
    )
    return "".join(kept)


def number_text(value: Any) -> str:
    """Return a value of a metric in a few digits; other values as they are printed."""
    if value is None:
        return "none"
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.4g}" if plain else _one_line(value)


def _heading(row: Mapping[str, Any], position: int, count: int) -> Iterator[str]:
    yield f"{position} of {count}"
    if "step" in row:
        yield f"step {number_text(row['step'])}"
    if row.get("example") is not None:
        yield _one_line(row["example"])
    for key in ("score", "reward"):
        if key in row:
            yield f"{key} {number_text(row[key])}"
    metrics = row.get("metrics")
    for name, value in metrics.items() if isinstance(metrics, dict) else ():
        yield f"{_one_line(name)} {number_text(value)}"
    if row.get("error"):
        yield f"error: {_one_line(row['error'])}"


def _prompt_lines(prompt: Any) -> Iterator[str]:
    for message in prompt if isinstance(prompt, list) else [prompt]:
        if not isinstance(message, dict):
            yield from _indented(message)
            continue
        yield _one_line(message.get("role", "message"))
        for key, value in message.items():
            if key == "content" and value is not None:
                yield from _indented(_parts_text(value))
            elif key not in ("role", "content") and value:
                yield from _indented(f"{_one_line(key)}: {printable_text(value)}")


def _parts_text(content: Any) -> Any:
    """Return the text of a list of parts that are all text; anything else is returned as it is."""
    if not isinstance(content, list):
        return content
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(parts) else content


def _indented(value: Any) -> Iterator[str]:
    for line in printable_text("" if value is None else value).split("\n"):
        yield f"{_MARGIN}{line}".rstrip()


def _one_line(value: Any) -> str:
    return " ".join(printable_text(value).split())
