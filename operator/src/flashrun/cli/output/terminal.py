"""Print to the user's terminal: answers on standard output, everything else on standard error.

Only a terminal gets colours and live lines; a pipe gets plain text, one line per record. ``rich``
is imported when something is drawn, as importing it takes longer than most commands.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from flashrun.cli.command_list import COMMANDS
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.printable_text import printable_text
from flashrun.cli.output.streams import discard
from flashrun.cli.output.tables import Table, Tone, plain_rows

if TYPE_CHECKING:
    from rich.console import Console

STYLES: Final = {
    Tone.GOOD: "green",
    Tone.BAD: "bold red",
    Tone.ACTIVE: "cyan",
    Tone.QUIET: "dim",
    Tone.PLAIN: "",
    Tone.TITLE: "bold",
}
"""How rich draws each tone."""
_COMMAND: Final = re.compile(
    rf"\bflash (?=(?:{'|'.join(re.escape(entry.name) for entry in COMMANDS)})\b)"
)
"""The first word of one of our commands in a message, as in ``flash runs``."""
_TERMS_WITHOUT_CURSOR: Final = frozenset({"", "dumb", "unknown"})
_PLAIN_TEXT: Final = re.compile(r"[A-Za-z_/]")
"""How text begins that no reader of YAML takes for a number, a date or a sign."""
_YAML_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Words that a reader of YAML 1.1 or 1.2 takes for another type, in any case of letters."""


def program() -> str:
    """Return how the user calls this program: ``flash``, ``flashrun`` or ``kubectl flash``."""
    name = PurePath(sys.argv[0]).stem
    if name == "kubectl-flash":
        return "kubectl flash"
    return name if name in ("flash", "flashrun") else "flash"


def as_typed(text: str) -> str:
    """Return ``text`` with our commands as the user types them, such as ``flashrun runs``."""
    return _COMMAND.sub(f"{program()} ", text)


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


def draws_in_place() -> bool:
    """Return whether standard output is a terminal on which something may be drawn again.

    It is not for CI systems, which record what is written, nor for people who ask for plain text.
    """
    plain = os.environ.get("TERM", "") in _TERMS_WITHOUT_CURSOR
    return is_terminal() and not (plain or os.environ.get("NO_COLOR") or os.environ.get("CI"))


def open_console(*, stderr: bool = False) -> "Console":
    """Return a console that draws on standard output, or on standard error."""
    from rich.console import Console

    # With NO_COLOR rich drops colours only, and we drop bold and dim too.
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(
        stderr=stderr,
        highlight=False,
        markup=False,
        soft_wrap=True,
        color_system=None if plain else "auto",
    )


def say(text: str, tone: Tone = Tone.PLAIN) -> None:
    """Print one line for people to standard error; on a full disk it is dropped.

    The exit code says how a command ended in any case.
    """
    try:
        _print_line(as_typed(text), tone, stderr=True)
    except BrokenPipeError:
        raise  # the reader of a followed run has enough
    except OSError:
        discard(sys.stderr)


def note(text: str) -> None:
    """Print a sentence that the user should know, although nothing is wrong."""
    say(f"note: {text}")


def write(text: str, tone: Tone = Tone.PLAIN) -> None:
    """Print a line of the answer to standard output."""
    _print_line(text, tone, stderr=False)


def _print_line(text: str, tone: Tone, *, stderr: bool) -> None:
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        text = printable_text(text)
    if tone is not Tone.PLAIN and stream.isatty():
        from rich.text import Text

        open_console(stderr=stderr).print(Text(text, style=STYLES[tone]))
    else:
        stream.write(f"{text}\n")
        stream.flush()


def write_paged(text: str) -> None:
    """Print an answer to a terminal, in the user's pager when the screen cannot hold it."""
    height = shutil.get_terminal_size().lines
    if text.count("\n") < height:
        write(text.rstrip("\n"))
        return
    import pydoc  # slow to import, and seldom needed

    pydoc.pager(text)


def write_data(value: Any, form: OutputFormat) -> None:
    """Print ``value`` as JSON or YAML."""
    if form is OutputFormat.JSON:
        write(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        write(to_yaml(value).rstrip())


def to_yaml(value: Any) -> str:
    """Return ``value`` as YAML that keeps the order of keys, with every string as a string.

    PyYAML leaves out the quotes of ``12e5``, ``08`` or ``y``, because YAML 1.1 as it reads it has
    strings there; the readers of kubectl, Helm and kustomize have numbers and booleans.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes strings that one of these readers could take for another type."""

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        plain = _PLAIN_TEXT.match(text) and text.lower() not in _YAML_WORDS
        style = None if plain else "|" if "\n" in text else "'"
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


def write_table(table: Table) -> None:
    """Print a table: drawn on a terminal, tab-separated lines in a pipe."""
    if not is_terminal():
        for line in plain_rows(table):
            write(line)
        return
    from rich.table import Table as RichTable
    from rich.text import Text

    console = open_console()
    drawn = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    one_line = bool(table.dispensable)
    table = table.fitted(console.width)
    excess = max(0, table.width - console.width) if one_line else 0
    for number, name in enumerate(table.header):
        # The first column has the record's name, which people copy: it must stay whole.
        is_name = number == 0
        is_cut = excess > 0 and not is_name and number == len(table.header) - 1
        drawn.add_column(
            name,
            overflow="ellipsis" if one_line else "fold",
            no_wrap=one_line or is_name,
            min_width=max((len(row[0].text) for row in table.rows), default=0) if is_name else None,
            max_width=max(1, table.column_width(number) - excess) if is_cut else None,
        )
    for row in table.rows:
        drawn.add_row(*(Text(printable_text(cell.text), STYLES[cell.tone]) for cell in row))
    console.print(drawn)


def write_answer(form: OutputFormat, *, data: Any, names: Iterable[str], table: Table) -> None:
    """Print an answer of several records in the form that was asked for."""
    match form:
        case OutputFormat.JSON | OutputFormat.YAML:
            write_data(data, form)
        case OutputFormat.NAME:
            for name in names:
                write(name)
        case OutputFormat.TABLE:
            write_table(table)
