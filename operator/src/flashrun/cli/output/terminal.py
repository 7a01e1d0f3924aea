"""What reaches the user's terminal: answers on standard output, everything else on standard error.

Colour and live lines are for terminals; pipes get plain lines, one record each. What draws is
imported when something is drawn, as that takes longer than most commands.
"""

import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from flashrun.cli.options import Output
from flashrun.cli.output.tables import Table, Tone, plain_rows

if TYPE_CHECKING:
    from rich.console import Console

_STYLES: Final = {
    Tone.GOOD: "green",
    Tone.BAD: "bold red",
    Tone.ACTIVE: "cyan",
    Tone.QUIET: "dim",
    Tone.PLAIN: "",
}
_OUR_COMMANDS: Final = re.compile(
    r"\bflash (?=(?:train|render|status|log|checkpoints|cancel|runs|rerun|diff|explain|models|gpus"
    r"|env|pull|save|schema|doctor|version)\b)"
)


def program() -> str:
    """Return how the user calls this program: ``flash``, ``flashrun`` or ``kubectl flash``."""
    name = PurePath(sys.argv[0]).stem
    if name == "kubectl-flash":
        return "kubectl flash"
    return name if name in ("flash", "flashrun") else "flash"


def in_user_words(text: str) -> str:
    """Return ``text`` with our commands spelled as the user typed this one."""
    return _OUR_COMMANDS.sub(f"{program()} ", text)


def is_terminal() -> bool:
    """Say whether someone reads standard output, rather than another program."""
    return sys.stdout.isatty()


def console(*, stderr: bool = False) -> "Console":
    """Return what draws on standard output, or on standard error."""
    from rich.console import Console

    # NO_COLOR asks for no styles at all; of its own accord rich would keep bold and dim ones.
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(
        stderr=stderr,
        highlight=False,
        markup=False,
        soft_wrap=True,
        color_system=None if plain else "auto",
    )


def say(text: str, tone: Tone = Tone.PLAIN) -> None:
    """Write one line for people to standard error."""
    _line(in_user_words(text), tone, stderr=True)


def write(text: str, tone: Tone = Tone.PLAIN) -> None:
    """Write a line of the answer to standard output."""
    _line(text, tone, stderr=False)


def _line(text: str, tone: Tone, *, stderr: bool) -> None:
    stream = sys.stderr if stderr else sys.stdout
    if tone is not Tone.PLAIN and stream.isatty():
        from rich.text import Text

        console(stderr=stderr).print(Text(text, style=_STYLES[tone]))
    else:
        stream.write(f"{text}\n")
        stream.flush()


def write_data(value: Any, form: Output) -> None:
    """Write ``value`` as JSON or YAML."""
    if form is Output.JSON:
        write(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        write(to_yaml(value).rstrip())


def to_yaml(value: Any) -> str:
    """Return ``value`` as YAML that keeps the order of keys."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def write_table(table: Table) -> None:
    """Write a table: drawn on a terminal, one line of tab-separated cells a record elsewhere."""
    if not is_terminal():
        for line in plain_rows(table):
            write(line)
        return
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(table.header):
        # The first column names the record: it is what people copy, so it stays in one piece.
        drawn.add_column(name, overflow="fold", no_wrap=number == 0)
    for row in table.rows:
        drawn.add_row(*(Text(cell.text, style=_STYLES[cell.tone]) for cell in row))
    console().print(drawn)


def write_answer(form: Output, *, data: Any, names: Iterable[str], table: Table) -> None:
    """Write an answer of several records in the form that was asked for."""
    match form:
        case Output.JSON | Output.YAML:
            write_data(data, form)
        case Output.NAME:
            for name in names:
                write(name)
        case Output.TABLE:
            write_table(table)
