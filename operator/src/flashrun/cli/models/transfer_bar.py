"""A bar for long transfers: drawn on a terminal, left out elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from flashrun.cli.output import terminal


@contextlib.contextmanager
def transfer_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that moves the bar by a number of bytes, out of ``total``."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from flashrun.cli.output.giving_way import giving_way

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = terminal.open_console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False), *columns, console=console, transient=True
    ) as progress:
        task = progress.add_task(title, total=total)
        with giving_way(progress.live):
            yield lambda size: progress.advance(task, size)
