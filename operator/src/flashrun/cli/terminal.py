"""What reaches the user's terminal: answers on standard output, everything else on standard error.

Colour and live lines are for terminals; pipes get plain lines, one record each.
"""

import json
import re
import sys
from pathlib import PurePath
from typing import Any, Final, TypeVar

import yaml
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from flashrun.cli.options import Output
from flashrun.cli.render import Table, Tone, plain_rows

_STYLES: Final = {
    Tone.GOOD: "green",
    Tone.BAD: "bold red",
    Tone.ACTIVE: "cyan",
    Tone.QUIET: "dim",
    Tone.PLAIN: "",
}
_OUR_COMMANDS: Final = re.compile(
    r"\bflash (?=(?:train|render|status|log|checkpoints|cancel|runs|models|env|pull|save|doctor)\b)"
)

Answer = TypeVar("Answer")


def program() -> str:
    """Return how the user calls this program: ``flash``, ``flashrun`` or ``kubectl flash``."""
    name = PurePath(sys.argv[0]).stem
    if name == "kubectl-flash":
        return "kubectl flash"
    return name if name in ("flash", "flashrun") else "flash"


def in_user_words(text: str) -> str:
    """Return ``text`` with our commands spelled as the user typed this one."""
    return _OUR_COMMANDS.sub(f"{program()} ", text)


def console() -> Console:
    """Return the console of standard output."""
    return Console(highlight=False, markup=False, soft_wrap=True)


def errors() -> Console:
    """Return the console of standard error."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def say(text: str, tone: Tone = Tone.PLAIN) -> None:
    """Write one line for people to standard error."""
    errors().print(Text(in_user_words(text), style=_STYLES[tone]))


def write(text: str, tone: Tone = Tone.PLAIN) -> None:
    """Write a line of the answer to standard output."""
    out = console()
    if out.is_terminal:
        out.print(Text(text, style=_STYLES[tone]))
    else:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def write_data(value: Any, form: Output) -> None:
    """Write ``value`` as JSON or YAML."""
    if form is Output.JSON:
        write(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        write(to_yaml(value).rstrip())


def to_yaml(value: Any) -> str:
    """Return ``value`` as YAML that keeps the order of keys."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def write_table(table: Table) -> None:
    """Write a table: drawn on a terminal, one line of tab-separated cells a record elsewhere."""
    out = console()
    if not out.is_terminal:
        for line in plain_rows(table):
            write(line)
        return
    drawn = RichTable(box=None, pad_edge=False, header_style="bold")
    for name in table.header:
        drawn.add_column(name, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(cell.text, style=_STYLES[cell.tone]) for cell in row))
    out.print(drawn)
