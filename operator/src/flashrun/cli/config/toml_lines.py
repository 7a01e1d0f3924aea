"""Find the line of each key in a TOML text, so that an error can name it.

The parser of the standard library keeps no positions. This scanner reads text that the parser has
accepted, so it only has to distinguish keys from values. Only ``deep_key`` runs before the parser,
as the parser's time grows with the square of the number of parts of a key.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Final, NamedTuple

Path = tuple[str, ...]
"""The parts of a dotted key."""

_TOKEN: Final = re.compile(
    r"""
    (?P<string> \"\"\"(?:\\.|[^\\])*?\"\"\"\"{0,2} | '''.*?''''{0,2}
              | "(?:\\.|[^"\\\n])*" | '[^'\n]*' )
    | (?P<newline> \n )
    | (?P<mark> [\[\]{}=,] )
    | (?P<blank> [ \t\r.]+ | \#[^\n]* )
    | (?P<bare> [^\s"'\#\[\]{}=,.]+ )
    | (?P<open> ["'] )
    """,
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def key_lines(text: str) -> dict[Path, int]:
    """Return the line, counted from 1, of every key and table header of valid TOML ``text``."""
    lines: dict[Path, int] = {}
    header: Path = ()
    for statement in _statements(text):
        if statement[0].text == "[":
            header = tuple(_key(token) for token in statement if token.kind in ("string", "bare"))
            lines.setdefault(header, statement[0].line)
        else:
            _add_key_lines(statement, header, lines)
    return lines


def deep_key(text: str, limit: int) -> int | None:
    """Return the line of the first dotted key with more than ``limit`` parts, or None."""
    if all(line.count(".") < limit for line in text.split("\n")):
        return None  # the usual case; a key is on one line
    parts, after_dot = 0, False
    for token in _tokens(text):
        if token.kind in ("string", "bare"):
            parts = parts + 1 if after_dot else 1
        after_dot = token.kind == "blank" and "." in token.text and not token.text.startswith("#")
        if parts > limit:
            return token.line
    return None


def _tokens(text: str) -> Iterator[_Token]:
    """Yield the tokens of the text, up to the first quote that is never closed."""
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "open":
            return
        yield _Token(match.lastgroup or "", match.group(), line)
        line += match.group().count("\n")


def _statements(text: str) -> Iterator[list[_Token]]:
    """Yield the tokens of each statement: a table header or a pair of key and value."""
    statement: list[_Token] = []
    depth = 0
    for token in _tokens(text):
        if token.kind == "newline" and depth == 0 and statement:
            yield statement
            statement = []
        elif token.kind in ("string", "bare", "mark"):
            statement.append(token)
        if token.kind == "mark":
            depth += (token.text in "[{") - (token.text in "]}")
    if statement:
        yield statement


def _add_key_lines(statement: list[_Token], header: Path, lines: dict[Path, int]) -> None:
    """Add the lines of the keys of one ``key = value``, also those in inline tables."""
    key: list[_Token] = []
    value_of = header
    brackets: list[tuple[str, Path]] = [("{", header)]
    in_key = True
    for token in statement:
        if token.kind != "mark":
            key += [token] if in_key else []
        elif token.text == "=" and in_key:
            value_of = brackets[-1][1] + tuple(map(_key, key))
            lines.setdefault(value_of, key[0].line)
            key, in_key = [], False
        elif token.text in "[{":
            brackets.append((token.text, value_of))
            in_key = token.text == "{"
        elif token.text in "]}":
            brackets.pop()
            in_key = False
        elif token.text == ",":
            in_key = brackets[-1][0] == "{"


def _key(token: _Token) -> str:
    if token.kind == "bare":
        return token.text
    return str(tomllib.loads(f"key = {token.text}")["key"])
