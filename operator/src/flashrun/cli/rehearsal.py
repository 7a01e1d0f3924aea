"""``flash env test``: an environment's own code, driven on this machine before it costs GPU time.

Rows are read as the trainer reads them, each prompt is built, and each expected answer is scored:
a scorer that gives its own data no credit is the commonest reason why a run learns nothing.
"""

import importlib.util
import json
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from flashrun.cli.failure import Failure, UsageFailure
from flashrun.cli.package import ENTRY_FILE


class Line(NamedTuple):
    """What happened with one row."""

    row: int
    prompt: str
    answer: str
    score: float | None
    """None for a row without an expected answer, or an environment with several turns."""


def rehearse(folder: Path, params: Mapping[str, Any], split: str, rows: int) -> Iterator[Line]:
    """Yield what the first ``rows`` rows of ``split`` do.

    Raises:
        Failure: the environment's code raised; its traceback is on standard error.
        UsageFailure: there is no such file, or the SDK is not installed here.
    """
    examples = _examples(folder, split)
    with _own_code("load_environment"):
        environment = _load(folder)(**params)
    for number, example in enumerate(examples[:rows], 1):
        with _own_code(f"row {number} of {split}"):
            yield _one(environment, example, number)


def _one(environment: Any, example: Any, number: int) -> Line:
    if not hasattr(environment, "build_prompt_messages"):
        episode = environment.start_episode(example, "")
        return Line(number, _text(list(episode)), str(example.output or ""), None)
    messages = environment.build_prompt_messages(example, "")
    answer = example.output
    score = None
    if isinstance(answer, str) and answer:
        score = float(environment.score_response(example, answer).score)
    return Line(number, _text(messages), str(answer or ""), score)


def _text(messages: list[Any]) -> str:
    last = messages[-1] if messages else ""
    return str(last.get("content", last) if isinstance(last, Mapping) else last)


def _examples(folder: Path, split: str) -> list[Any]:
    try:
        from freesolo.datasets import TaskExample
    except ImportError:
        raise UsageFailure(
            "the environment SDK is not installed here", "pip install freesolo==0.4.2"
        ) from None
    path = folder / "dataset" / f"{split}.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageFailure(f"cannot read {path}: {error}") from None
    examples = []
    for number, line in enumerate(filter(str.strip, lines), 1):
        record = _record(path, number, line)
        examples.append(
            TaskExample(
                input=record["input"],
                output=record.get("output"),
                id=f"example_{number - 1:06d}",
                metadata=record.get("metadata") or {},
                record=record,
            )
        )
    if not examples:
        raise UsageFailure(f"{path} has no rows")
    return examples


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UsageFailure(f"{path}:{number} is not JSON: {error}") from None
    record = {"input": value} if isinstance(value, str) else value
    if not isinstance(record, dict) or "input" not in record:
        raise UsageFailure(
            f"{path}:{number} must be an object with input, and output if you have it"
        )
    return record


def _load(folder: Path) -> Any:
    """Import the environment as the trainer does: its folder first on the path."""
    path = folder / ENTRY_FILE
    if not path.is_file():
        raise UsageFailure(f"{folder} has no {ENTRY_FILE}", "flash env setup writes one")
    sys.path.insert(0, str(folder.resolve()))
    spec = importlib.util.spec_from_file_location("environment", path)
    assert spec is not None  # a path that ends in .py has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["environment"] = module
    spec.loader.exec_module(module)
    found = getattr(module, "load_environment", None)
    if not callable(found):
        raise UsageFailure(f"{path} defines no function load_environment")
    return found


@contextmanager
def _own_code(what: str) -> Iterator[None]:
    """Tell the environment's errors from ours."""
    try:
        yield
    except (UsageFailure, Failure):
        raise
    except Exception as error:
        traceback.print_exc()
        raise Failure(f"{what}: the environment raised {type(error).__name__}: {error}") from None
