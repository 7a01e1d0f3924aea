"""``flash report``: one HTML file about one or more runs, to look at and to hand on."""

import asyncio
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from flashrun.cli.cluster.connection import check_run_name, connect
from flashrun.cli.options import Context, Namespace, complete_run
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure, UsageFailure
from flashrun.cli.report.report_data import ReportData, read_report

_SUFFIX = ".html"


def report(
    runs: Annotated[
        list[str],
        typer.Argument(help="Names of the runs.", metavar="RUN...", autocompletion=complete_run),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write; by default RUN.html in this folder."),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Write one HTML file about runs: curves, scores and answers.

    The path of the file is printed. It has the curves of all runs in one chart per metric, how each
    run spent its time, its checkpoints with their scores, its spec, and what the model answered,
    with a search. It needs no network. A deleted run has what storage has of it.

    Example: flash report flash-1795370000-3fa9c1d2 flash-1795380000-77b0e4aa --out both.html
    """
    named = list(dict.fromkeys(map(check_run_name, runs)))
    path = out or Path(f"{named[0]}{_SUFFIX}")
    _check_installed()
    found = asyncio.run(_read(named, namespace, context))
    from flashrun.cli.report.report_page import build_page

    write_page(path, build_page(found, datetime.now(UTC)))
    terminal.write(str(path))


def _check_installed() -> None:
    """Refuse before anything is read when a library that draws the report is missing."""
    try:
        import jinja2  # noqa: F401
        import plotly  # noqa: F401
    except ImportError as error:
        raise UsageFailure(
            f"a report is drawn by a library that is not installed: {error.name}",
            "install flashrun with the extra report: pip install 'flashrun[report]'",
        ) from None


async def _read(runs: list[str], namespace: str | None, context: str | None) -> list[ReportData]:
    async with connect(context, namespace) as session:
        return [await read_report(session, name) for name in runs]


def write_page(path: Path, page: str) -> None:
    """Write the page as a whole or not at all."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=_SUFFIX, delete=False, encoding="utf-8",
            errors="backslashreplace",
        ) as file:  # fmt: skip
            file.write(page)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise Failure(
            f"{path} cannot be written: {error.strerror}", "choose another file with --out"
        ) from None
