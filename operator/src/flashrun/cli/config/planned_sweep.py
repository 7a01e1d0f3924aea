"""Print the runs of a sweep with the values in which they differ."""

from flashrun.cli.config.sweep_file import ComposedSweep
from flashrun.cli.output import terminal
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Cell, Table


def print_planned(sweep: ComposedSweep, output: OutputFormat) -> None:
    """Print the runs in the order of the file."""
    terminal.write_answer(
        output,
        data={
            "sweep": sweep.membership.to_manifest(),
            "runs": [{"name": run.name, "sets": list(run.sets)} for run in sweep.runs],
        },
        names=[run.name for run in sweep.runs],
        table=Table(
            ("RUN", "SETTINGS"),
            tuple((Cell(run.name), Cell(" ".join(run.sets))) for run in sweep.runs),
        ),
    )
