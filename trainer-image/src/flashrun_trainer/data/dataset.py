"""The dataset of an environment: which file holds the run's split, and its examples."""

import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedEnvironment
from flashrun_trainer.data.conversations import read_row
from flashrun_trainer.pod.distributed import ProcessGroup
from flashrun_trainer.pod.trainer_errors import TrainerError

_SUFFIXES: Final = (".jsonl", ".json")
_ROOT_SPLITS: Final = ("train", "test", "validation", "eval")
"""Splits that may lie at the root of a package; any other lies in its folder ``dataset``."""


def dataset_path(folder: Path, spec: ResolvedEnvironment) -> Path | None:
    """Return the file of the run's split, or None when the package in ``folder`` has no dataset.

    Raises:
        TrainerError: the package has a dataset, but not this split.
    """
    given = spec.params.get("dataset_path")
    if isinstance(given, str):
        return _path_in_package(folder, given)
    if "records" in spec.params:
        return None
    for parent in (folder / "dataset", folder):
        for suffix in _SUFFIXES:
            if (path := parent / f"{spec.split}{suffix}").is_file():
                return path
    splits = list_splits(folder)
    if not splits and "split" not in spec.params:
        return None
    listed = ", ".join(splits) if splits else f"no dataset at all{unread_file_remark(folder)}"
    raise TrainerError(
        Exit.DATA,
        Reason.SPLIT_MISSING,
        f"the package of {spec.id} has no dataset/{spec.split}.jsonl; it has {listed}",
        "set [environment.params] split to one of these, or add the file and run flash env push",
    )


def list_splits(folder: Path) -> list[str]:
    """Return the splits that a package has, sorted by name."""
    packaged = (folder / "dataset").glob("*")
    root = (folder / f"{split}.jsonl" for split in _ROOT_SPLITS)
    files = (path for path in (*packaged, *root) if path.suffix in _SUFFIXES and path.is_file())
    return sorted({path.stem for path in files})


def unread_file_remark(folder: Path) -> str:
    """Return a remark about a file that may have been meant as a dataset, or an empty string."""
    files = (path for path in (folder / "dataset").glob("*") if path.is_file())
    names = sorted(path.name for path in files if path.suffix not in _SUFFIXES)
    return f"; dataset/{names[0]} is not JSON Lines" if names else ""


def _path_in_package(folder: Path, given: str) -> Path:
    path = (folder / given).resolve()
    if path.is_relative_to(folder.resolve()) and path.is_file():
        return path
    raise TrainerError(
        Exit.DATA,
        Reason.DATASET_MISSING,
        f"params.dataset_path {given!r} is not a file of the environment's package",
        "set [environment.params] dataset_path relative to environment.py",
    )


def load_examples(sdk: Any, params: Mapping[str, Any], path: Path | None) -> list[Any]:
    """Return the examples in ``path``; without one, those of ``params.records`` or of the code.

    Raises:
        ValueError: a row is neither an input nor a conversation.
    """
    from freesolo.datasets.records import load_records, load_task_examples

    if path is not None:
        rows: Any = load_records(path)
    else:
        own = getattr(sdk, "dataset", None) or getattr(sdk, "examples", None) or ()
        rows = params.get("records") or getattr(own, "examples", own)
    if isinstance(rows, str | Path):
        rows = load_records(rows)
    rows = list(rows)
    examples = load_task_examples([read_row(row) for row in rows])
    # The environment's code sees every row as it was written.
    return [
        replace(example, record=row) if isinstance(row, dict) else example
        for example, row in zip(examples, rows, strict=True)
    ]


def describe_reading(path: Path | None, folder: Path) -> str:
    """Return what is read, for an error message, with the first line that is not an example.

    The SDK stops at the first bad row, and does not name it.
    """
    if path is None:
        return "reading its dataset"
    name = path.relative_to(folder) if path.is_relative_to(folder) else path.name
    lines = path.read_bytes().split(b"\n") if path.suffix == ".jsonl" else []
    bad = (number for number, line in enumerate(lines, 1) if line.strip() and not _is_example(line))
    return f"reading {name}, line {number}" if (number := next(bad, 0)) else f"reading {name}"


def _is_example(line: bytes) -> bool:
    try:
        row = json.loads(line.decode())
        read_row(row)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, str | dict)


def example_name(example: Any) -> str:
    """Return the name of an example for people: ``row 1`` is the first row of the dataset."""
    _, _, index = str(getattr(example, "id", "")).rpartition("_")
    return f"row {int(index) + 1}" if index.isdigit() else "an example"


def check_same_examples(process_group: ProcessGroup, examples: Iterable[Sequence[int]]) -> None:
    """Check that all ranks have the same examples, given as token ids.

    Each rank takes its share of its own list, so a different order would train on some examples
    twice and on others never.

    Raises:
        TrainerError: the examples differ.
    """
    if process_group.world_size == 1:
        return
    sha256 = hashlib.sha256()
    for ids in examples:
        sha256.update(b"%d:" % len(ids) + array("q", ids).tobytes())
    if len(set(process_group.all_gather(sha256.hexdigest()))) > 1:
        raise TrainerError(
            Exit.ENVIRONMENT,
            Reason.EXAMPLES_DIFFER,
            "the environment gives different examples to the processes of this run: its code draws "
            "random numbers without a seed",
            "use a random.Random with a fixed seed in environment.py",
        )
