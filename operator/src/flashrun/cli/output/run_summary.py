"""One run as an answer, in the form that was asked for."""

from datetime import UTC, datetime
from typing import Any

from flashrun.api.resource import FlashRun
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Tone


def print_run(run: FlashRun, manifest: dict[str, Any], output: OutputFormat) -> None:
    """Print a run; ``manifest`` is the same run as the API server has it, for programs."""
    match output:
        case OutputFormat.JSON | OutputFormat.YAML:
            terminal.write_data(manifest, output)
        case OutputFormat.NAME:
            terminal.write(run.name)
        case OutputFormat.TABLE:
            for label, text in formatting.summary(run, datetime.now(UTC)):
                tone = formatting.phase_tone(run.status.phase) if label == "Phase" else Tone.PLAIN
                terminal.write(f"{label + ':':<13}{text}", tone)
