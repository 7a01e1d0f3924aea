"""What ``--dry-run`` prints: the resolved config, and what is known about it.

Offline the platform as it was last seen answers; with ``--server`` the cluster does.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import typer

from flashrun.cli.config import load_config, platform_cache, show_config
from flashrun.cli.config.compose import ComposedConfig
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import ExitCode, UsageFailure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Tone

_CHOSEN_BY_PLATFORM: Final = (
    "# chosen by the platform: name, pool, GPUs, image, version of the environment and the model"
)


@dataclass
class DryRunAnswers:
    """The answers about a config: notes and problems, and the results of checks in the cluster."""

    server: bool
    """Whether the cluster was asked."""
    lines: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, check: str, line: str, **data: Any) -> None:
        """Record the result of a check: a line for people, data for programs."""
        self.lines[check] = line
        self.data[check] = data


def refuse_name(output: OutputFormat) -> None:
    """Refuse ``-o name``: a dry run creates no run, so there is no name to print."""
    if output is OutputFormat.NAME:
        raise UsageFailure("a dry run creates no run, so it has no name to print", "use -o json")


def ask_offline(composed: ComposedConfig) -> DryRunAnswers:
    """Check a config against the platform as it was last seen.

    Raises:
        ConfigError: the platform would refuse the config.
    """
    notes = load_config.check(composed, platform_cache.load())
    return DryRunAnswers(server=False, notes=list(notes))


def print_dry_run(composed: ComposedConfig, answers: DryRunAnswers, output: OutputFormat) -> None:
    """Print a resolved config with the answers; exits with 2 when there are problems."""
    for note in answers.notes:
        terminal.say(f"note: {note}")
    settings = show_config.list_settings(composed)
    if output in (OutputFormat.JSON, OutputFormat.YAML):
        terminal.write_data(show_config.to_data(settings) | _answers_data(answers), output)
    else:
        terminal.write("\n".join((show_config.to_toml(settings), *_answers_comments(answers))))
    for problem in answers.problems:
        terminal.say(f"error: {problem}", Tone.BAD)
    if answers.problems:
        raise typer.Exit(ExitCode.USAGE)


def _answers_data(answers: DryRunAnswers) -> dict[str, Any]:
    if not answers.server:
        return {}
    return {"server": answers.data, "notes": answers.notes, "problems": answers.problems}


def _answers_comments(answers: DryRunAnswers) -> list[str]:
    if not answers.server:
        return [_CHOSEN_BY_PLATFORM]
    lines = (f"# {check}: {line}" for check, line in answers.lines.items())
    return ["# from the cluster", *lines]
