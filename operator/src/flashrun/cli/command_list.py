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
    default: str = ""
    """The command of a group that is meant when none is named."""


COMMANDS: Final = (
    CommandEntry("train", "Train the adapter that a config describes."),
    CommandEntry("rerun", "Train again what a run trained, with changes."),
    CommandEntry("render", "Print the FlashRun that train would submit."),
    CommandEntry(
        "sweep",
        "Train a family of runs, so many at once, and rank them.",
        subcommands=(
            CommandEntry("start", "Submit the runs of a sweep, so many at once."),
            CommandEntry("status", "Rank the runs of a sweep by their evaluations."),
        ),
        default="start",
    ),
    CommandEntry("status", "Show the progress of a run, and why it waits or failed."),
    CommandEntry("log", "Print the log of a run."),
    CommandEntry("metrics", "Print the metrics of a run."),
    CommandEntry("rollouts", "Show what the model answered in a step, and its scores."),
    CommandEntry("report", "Write one HTML file about runs: curves, scores and answers."),
    CommandEntry("checkpoints", "List a run's checkpoints."),
    CommandEntry("pull", "Download an adapter and print the folder that holds it."),
    CommandEntry("export", "Write an adapter in the layout of another tool."),
    CommandEntry("serve", "Print the objects of a server for adapters, or run it."),
    CommandEntry("chat", "Ask an adapter that a server serves."),
    CommandEntry("save", "Ask a run for a checkpoint at its next step."),
    CommandEntry("budget", "Change how many GPU hours a run may use."),
    CommandEntry("cancel", "End a run for good; what it saved is kept."),
    CommandEntry("runs", "List the runs of a namespace, newest first."),
    CommandEntry("diff", "Show the settings in which two runs differ."),
    CommandEntry("explain", "Explain a key of the config."),
    CommandEntry("cost", "Show the GPU hours that runs have used."),
    CommandEntry("models", "List the base models and the GPUs that runs of them get."),
    CommandEntry(
        "model",
        "Fill the platform's mirror of base models.",
        subcommands=(
            CommandEntry("push", "Put a base model into the platform's mirror."),
            CommandEntry("list", "List the models in the platform's mirror.", "list_mirror"),
            CommandEntry("delete", "Delete a revision of a model from the mirror."),
        ),
    ),
    CommandEntry("gpus", "List the pools of GPUs and how many GPUs are free."),
    CommandEntry(
        "env",
        "Make, check and publish environments: what runs learn from.",
        subcommands=(
            CommandEntry("setup", "Write a small example project."),
            CommandEntry("test", "Check an environment on this machine.", "check_environment"),
            CommandEntry("push", "Publish a folder as an environment and print its id."),
            CommandEntry("pull", "Download an environment and print the folder that holds it."),
            CommandEntry("list", "List the published environments.", "list_environments"),
            CommandEntry("delete", "Delete an environment with all its versions."),
        ),
    ),
    CommandEntry("schema", "Print the JSON Schema of run configs, for editors."),
    CommandEntry("doctor", "Check that this machine can submit runs."),
    CommandEntry("version", "Print the version."),
)
