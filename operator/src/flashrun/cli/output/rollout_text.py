"""A rollout as text for people: a heading with its scores, the prompt, and the answer."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from flashrun.cli.output.printable_text import printable_line, printable_text

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


def number_text(value: Any) -> str:
    """Return a value of a metric in a few digits; other values as they are printed."""
    if value is None:
        return "none"
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.4g}" if plain else printable_line(value)


def _heading(row: Mapping[str, Any], position: int, count: int) -> Iterator[str]:
    yield f"{position} of {count}"
    if "step" in row:
        yield f"step {number_text(row['step'])}"
    if row.get("example") is not None:
        yield printable_line(row["example"])
    for key in ("score", "reward"):
        if key in row:
            yield f"{key} {number_text(row[key])}"
    metrics = row.get("metrics")
    for name, value in metrics.items() if isinstance(metrics, dict) else ():
        yield f"{printable_line(name)} {number_text(value)}"
    if row.get("error"):
        yield f"error: {printable_line(row['error'])}"


def _prompt_lines(prompt: Any) -> Iterator[str]:
    for message in prompt if isinstance(prompt, list) else [prompt]:
        if not isinstance(message, dict):
            yield from _indented(message)
            continue
        yield printable_line(message.get("role", "message"))
        for key, value in message.items():
            if key == "content" and value is not None:
                yield from _indented(_parts_text(value))
            elif key not in ("role", "content") and value:
                yield from _indented(f"{printable_line(key)}: {printable_text(value)}")


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
