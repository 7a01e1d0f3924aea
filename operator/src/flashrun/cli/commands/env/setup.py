"""``flash env setup``: write a small example project, or one of the rows that a user has."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from flashrun.api import catalog
from flashrun.api.config import LONGEST_SEQUENCE, Algorithm
from flashrun.cli.environments import template
from flashrun.cli.environments.identifier import check_identifier
from flashrun.cli.options import Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure, UsageFailure
from flashrun.cli.output.output_format import OutputFormat


def setup(
    folder: Annotated[
        Path, typer.Argument(help="Folder to write into.", metavar="FOLDER")
    ] = Path(),
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="File with rows to learn: JSON Lines, JSON, CSV or Parquet; "
            "FOLDER must not exist, or be empty.",
            metavar="FILE",
        ),
    ] = None,
    held_out: Annotated[
        int | None,
        typer.Option(
            "--held-out",
            min=0,
            help="With --from: rows to evaluate on; by default a tenth, at most 64.",
            metavar="N",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="With --from: another choice of held-out rows.")
    ] = 0,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Id that the configs name; by default your-org and the folder's name.",
            metavar="ORG/NAME",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="Base model that the configs name.", metavar="MODEL")
    ] = template.DEFAULT_MODEL,
    several_turns: Annotated[
        bool, typer.Option("--multi-turn", help="Write an environment with several turns.")
    ] = False,
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Write answers that begin with reasoning.")
    ] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Write a small example project, or with --from a project that learns the rows of a file.

    Without --from, files that exist are kept. A row of FILE has messages, conversations, prompt and
    completion, instruction and output, or input and output.

    Example: flash env setup ./support --from chats.jsonl
    """
    identifier = check_identifier(name) if name else _identifier_of(folder)
    if source is None:
        _write_example(folder, identifier, model, several_turns, reasoning)
        config = folder / "configs/sft.toml"
    else:
        if several_turns or reasoning:
            option = "--multi-turn" if several_turns else "--reasoning"
            raise UsageFailure(f"{option} chooses an example, and --from writes none")
        config = _write_rows(folder, source, held_out, seed, identifier, model, output)
    terminal.say(
        f"next: flash env test {folder}, then flash env push {folder} --name {identifier}, "
        f"then flash train {config}"
    )


def _identifier_of(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip(".-") or "my-env"
    return f"your-org/{name}"


def _write_example(
    folder: Path, identifier: str, model: str, several_turns: bool, reasoning: bool
) -> None:
    files = template.files(identifier, model, several_turns=several_turns, reasoning=reasoning)
    for relative, text in files.items():
        path = folder / relative
        if path.exists():
            terminal.say(f"kept {path}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        terminal.write(str(path))


def _write_rows(
    folder: Path,
    source: Path,
    held_out: int | None,
    seed: int,
    identifier: str,
    model: str,
    output: OutputFormat,
) -> Path:
    """Write a project that learns from the rows of ``source``; return its config."""
    # The trainer's readers are slow to import, and only this needs them.
    from flashrun.cli.environments.env_check import check_sdk_installed, estimate_tokens
    from flashrun.cli.environments.imported_rows import import_rows

    check_sdk_installed()
    _check_is_free(folder)
    rows = import_rows(source, held_out, seed)
    # Reasoning mode asks the model to reason before every answer.
    reasoning = 2 * rows.with_reasoning > rows.learned
    shortest = catalog.max_length_default(Algorithm.SFT, reasoning, 0)
    files = template.files_of_rows(
        identifier,
        model,
        rows.train,
        rows.held_out,
        reasoning=reasoning,
        max_length=_sequence_length(estimate_tokens(rows.longest), shortest),
    )
    _write_new_folder(folder, files)
    for sentence in rows.sentences(source):
        terminal.say(sentence)
    written = [folder / relative for relative in files]
    if output in (OutputFormat.JSON, OutputFormat.YAML):
        terminal.write_data({"files": list(map(str, written)), **rows.data()}, output)
    else:
        for path in written:
            terminal.write(str(path))
    return written[-1]


def _sequence_length(tokens: int, shortest: int) -> int:
    """Return the length in tokens for the longest row, with room for the chat template."""
    length = shortest
    while length < tokens * 5 // 4 and length < LONGEST_SEQUENCE:
        length *= 2
    return min(length, LONGEST_SEQUENCE)


def _check_is_free(folder: Path) -> None:
    """Raise ``UsageFailure`` when something exists at ``folder`` but an empty folder."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageFailure(f"{folder} exists and is not a folder", "choose another name")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageFailure(
            f"{folder} exists, and setup --from does not change what is there",
            "choose another name, or remove the folder",
        )


def _write_new_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a new folder: all of them, or none."""
    existing = next(parent for parent in folder.absolute().parents if parent.is_dir())
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".flash-") as scratch:
            new = Path(scratch, "new")
            for relative, text in files.items():
                path = new / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            folder.parent.mkdir(parents=True, exist_ok=True)
            new.rename(folder)
    except OSError as error:
        raise Failure(f"{folder} cannot be written: {error.strerror}") from error
