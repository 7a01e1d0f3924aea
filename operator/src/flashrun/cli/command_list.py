"""The list of commands, written once.

``main`` builds the help and loads a command by it, and messages are spelled by it. The list imports
no command, so that ``flash --help`` and completion answer at once.
"""

from typing import Final, NamedTuple


class CommandEntry(NamedTuple):
    """One command, or a group of commands."""

    name: str
    """The word that is typed; the module of the command has the same name."""
    summary: str
    """The line about it in the list of commands."""
    function: str = ""
    """The function in the module; empty when it has the command's name."""
    subcommands: "tuple[CommandEntry, ...]" = ()
    """The commands of a group; empty for a command."""


COMMANDS: Final = (
    CommandEntry("train", "Train the adapter that a config describes."),
    CommandEntry("rerun", "Train again what a run trained, with changes."),
    CommandEntry("render", "Print the FlashRun that train would submit."),
    CommandEntry("status", "Show where a run is, what it saved."),
    CommandEntry("log", "Print what a run wrote."),
    CommandEntry("checkpoints", "List a run's checkpoints."),
    CommandEntry("pull", "Download an adapter and print the folder that holds it."),
    CommandEntry("save", "Ask a run for a checkpoint at its next step."),
    CommandEntry("cancel", "End a run for good; what it saved is kept."),
    CommandEntry("runs", "List the runs of a namespace, newest first."),
    CommandEntry("diff", "Show in which settings two runs differ."),
    CommandEntry("explain", "Explain a key of the config."),
    CommandEntry("models", "List the base models and the GPUs that they would get."),
    CommandEntry("gpus", "List the pools of GPUs and what is free in them."),
    CommandEntry(
        "env",
        "Make, check and publish environments: what runs learn from.",
        subcommands=(
            CommandEntry("setup", "Write a small project to begin with."),
            CommandEntry("test", "Check an environment on this machine.", "check_environment"),
            CommandEntry("push", "Publish a folder as an environment and print its id."),
            CommandEntry("pull", "Fetch an environment into a folder and print its path."),
            CommandEntry("list", "List the published environments.", "list_environments"),
            CommandEntry("delete", "Delete an environment with all its versions."),
        ),
    ),
    CommandEntry("schema", "Print the JSON Schema of run configs, for editors."),
    CommandEntry("doctor", "Check that this machine can submit runs."),
    CommandEntry("version", "Print the version."),
)
