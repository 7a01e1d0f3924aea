"""``flash env setup``: write a small example project."""

import re
from pathlib import Path
from typing import Annotated

import typer

from flashrun.cli.environments import template
from flashrun.cli.output import terminal


def setup(
    folder: Annotated[
        Path, typer.Argument(help="Folder to write into.", metavar="FOLDER")
    ] = Path(),
    several_turns: Annotated[
        bool, typer.Option("--multi-turn", help="Write an environment with several turns.")
    ] = False,
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Write answers that begin with reasoning.")
    ] = False,
) -> None:
    """Write a small example project.

    Files that exist are kept.

    Example: flash env setup ./sums
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip(".-") or "my-env"
    identifier = f"your-org/{name}"
    files = template.files(identifier, several_turns=several_turns, reasoning=reasoning)
    for relative, text in files.items():
        path = folder / relative
        if path.exists():
            terminal.say(f"kept {path}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        terminal.write(str(path))
    terminal.say(
        f"next: flash env test {folder}, then flash env push {folder} --name {identifier}, "
        f"then flash train {folder / 'configs/sft.toml'}"
    )
