"""``flash version``: the version of this program."""

from flashrun import __version__
from flashrun.cli.output import terminal


def version() -> None:
    """Print the version.

    Example: flash version
    """
    terminal.write(f"{terminal.program()} {__version__}")
