"""Check an environment: run it in a separate process, then assess what it reported.

``run_env_check`` starts the process in an empty folder with a time limit and reads its events;
``assess``, a pure function, turns the events into findings.
"""

import contextlib
import importlib.util
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from flashrun.api.config import Algorithm
from flashrun.api.env_check_records import (
    CheckedRow,
    CheckEvent,
    EnvCheckTask,
    Fault,
    ScoredAnswer,
)
from flashrun.api.verifiers_packages import VERIFIERS, VERSION
from flashrun.cli.environments import pod_likeness
from flashrun.cli.environments.package import check_is_environment
from flashrun.cli.output.failure import UsageFailure

CHARACTERS_PER_TOKEN: Final = 4
"""A rough average: there is no tokenizer on the user's machine."""
SLOW_SECONDS: Final = 1.0
_PROCESS_MODULE: Final = "flashrun_trainer.env_check_process"
_TOKENIZER_CONFIG: Final = "tokenizer_config.json"
_ROWS_LISTED: Final = 3
_WRITES: Final = (
    "the environment writes {} to its working folder, which is read-only in a pod; write below "
    "tempfile.gettempdir()"
)


class EnvCheckResult(NamedTuple):
    """What the process reported, and why it did not finish."""

    events: tuple[CheckEvent, ...]
    unfinished: str = ""
    """How the process ended before the check was complete; empty when it was complete."""

    @property
    def rows(self) -> tuple[CheckedRow, ...]:
        """Every row that has a prompt."""
        return tuple(event.row for event in self.events if event.row is not None)


class Severity(StrEnum):
    """An error makes a run fail; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


class EnvFinding(NamedTuple):
    """One problem of an environment, for its author."""

    severity: Severity
    sentence: str
    place: str = ""

    def __str__(self) -> str:
        """Return ``place: sentence``, the form that editors recognise as a link."""
        return f"{self.place}: {self.sentence}" if self.place else self.sentence


class PlannedRun(NamedTuple):
    """The run that would use the environment."""

    algorithm: Algorithm | None
    """None when no config was given."""
    thinking: bool
    max_tokens: int
    max_length: int


# --- the process --------------------------------------------------------------------------------


def check_possible(folder: Path, *, with_tokenizer: bool, python: str = "") -> None:
    """Raise ``UsageFailure`` if no check of ``folder`` is possible on this machine.

    ``python`` is the interpreter for an environment of ``verifiers``; empty for our own.
    """
    entry = check_is_environment(folder)
    check_sdk_installed()
    if entry is not None and not python and importlib.util.find_spec(VERIFIERS) is None:
        raise UsageFailure(
            "the environment needs verifiers, which is not installed here",
            f"install verifiers=={VERSION} and what else it needs into a virtual environment, and "
            "give its bin/python to --python",
        )
    if python and not os.access(python, os.X_OK):
        raise UsageFailure(f"{python} is not a program", "give an interpreter to --python")
    if with_tokenizer and importlib.util.find_spec("transformers") is None:
        raise UsageFailure(
            "transformers is not installed here, which reads tokenizers",
            "pip install transformers==5.19.0, or leave out --model",
        )


def run_env_check(
    task: EnvCheckTask, seconds: float, variables: Mapping[str, str], *, verbose: bool = False
) -> EnvCheckResult:
    """Run ``task`` in a separate process, like in a pod whose run has these ``variables``.

    The process is killed after ``seconds``.

    Raises:
        UsageFailure: a folder has no environment or no tokenizer, or a library is not installed.
    """
    if task.model and not (Path(task.model) / _TOKENIZER_CONFIG).is_file():
        raise UsageFailure(
            f"{task.model} has no {_TOKENIZER_CONFIG}",
            "give the folder of a downloaded model to --model",
        )
    check_possible(Path(task.folder), with_tokenizer=bool(task.model), python=task.python)
    with tempfile.TemporaryDirectory(prefix="flash-") as scratch:
        folder, events = Path(task.folder), Path(scratch, "events")
        made = pod_likeness.make_folders(Path(scratch), folder)
        copied = task.replace(folder=str(made.environment), modules=str(made.modules))
        Path(scratch, "task").write_text(copied.model_dump_json())
        ending = _run(
            [sys.executable, "-m", _PROCESS_MODULE, str(Path(scratch, "task")), str(events)],
            made.work,
            pod_likeness.variables(made.home, variables),
            seconds,
            verbose,
        )
        # What the environment's code says of its place is about the folder of its author.
        reported = tuple(_read_events(events, {str(made.environment): task.folder}))
        written = pod_likeness.written_files(made.work)
    if written:
        sentence = _WRITES.format(", ".join(written[:_ROWS_LISTED]))
        reported = (CheckEvent(fault=Fault(sentence=sentence)), *reported)
    if reported and reported[-1].over:
        return EnvCheckResult(reported)
    doing = next((event.doing for event in reversed(reported) if event.doing), "starting")
    return EnvCheckResult(reported, f"{ending} while {doing}")


def check_sdk_installed() -> None:
    """Raise ``UsageFailure`` when the environment SDK is not installed on this machine."""
    if importlib.util.find_spec("freesolo") is None:
        raise UsageFailure(
            "the environment SDK is not installed here", "pip install freesolo==0.4.2"
        )


def _run(
    command: list[str],
    folder: Path,
    variables: Mapping[str, str],
    seconds: float,
    verbose: bool,
) -> str:
    """Run ``command`` and return how it ended; with ``verbose`` its output goes to stderr."""
    output = sys.stderr if verbose else subprocess.DEVNULL
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"it took longer than {seconds:g} s"
    finally:
        with contextlib.suppress(OSError):  # also processes that the environment started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"its process ended with {ending}"


def _read_events(path: Path, replaced: Mapping[str, str]) -> Iterator[CheckEvent]:
    with contextlib.suppress(OSError, ValidationError):  # the last line may be incomplete
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            for old, new in replaced.items():
                line = line.replace(old, new)
            if line:
                yield CheckEvent.model_validate_json(line)


# --- the assessment -----------------------------------------------------------------------------


def assess(result: EnvCheckResult, run: PlannedRun) -> list[EnvFinding]:
    """Return everything that is wrong with an environment, errors first."""
    findings = [
        EnvFinding(
            Severity.ERROR if event.fault.fatal else Severity.WARNING,
            event.fault.sentence,
            event.fault.place,
        )
        for event in result.events
        if event.fault is not None
    ]
    if result.unfinished:
        findings.append(EnvFinding(Severity.ERROR, result.unfinished))
    if result.rows:
        findings += [*_check_answers(result.rows, run), *_check_lengths(result.rows, run)]
        if run.algorithm is not Algorithm.SFT:
            findings += _check_rewards(result.rows)
    return sorted(findings, key=lambda finding: finding.severity is Severity.WARNING)


def _check_answers(rows: tuple[CheckedRow, ...], run: PlannedRun) -> Iterator[EnvFinding]:
    """Check the outputs that SFT learns from."""
    without = [row for row in rows if not row.answer_characters]
    if len(without) == len(rows) and run.algorithm is Algorithm.SFT:
        yield EnvFinding(Severity.ERROR, "no row has an output, so SFT has nothing to learn from")
    elif without and run.algorithm is not Algorithm.GRPO:
        yield EnvFinding(
            Severity.WARNING, f"{_rows(without, rows)} no output; SFT leaves such rows out"
        )
    without_thoughts = [row for row in rows if row.answer_characters and not row.has_thoughts]
    if run.thinking and without_thoughts and run.algorithm is not Algorithm.GRPO:
        yield EnvFinding(
            Severity.WARNING,
            f"{_rows(without_thoughts, rows)} no reasoning in the output; with thinking = "
            "true, SFT would teach the model not to reason",
        )
    with_thoughts = [row for row in rows if row.has_thoughts]
    if not run.thinking and with_thoughts and run.algorithm is Algorithm.SFT:
        yield EnvFinding(
            Severity.WARNING,
            f"{_rows(with_thoughts, rows)} reasoning in the output; with thinking = "
            "false, the model is never asked to reason: set thinking = true, or leave it out",
        )


def _check_lengths(rows: tuple[CheckedRow, ...], run: PlannedRun) -> Iterator[EnvFinding]:
    estimate = f"estimated at {CHARACTERS_PER_TOKEN} characters per token"
    if run.algorithm is not Algorithm.SFT:
        long = [row for row in rows if estimate_tokens(row.answer_characters) > run.max_tokens]
        if long:
            longest = max(estimate_tokens(row.answer_characters) for row in long)
            yield EnvFinding(
                Severity.WARNING,
                f"{_rows(long, rows)} an answer longer than max_tokens = {run.max_tokens} "
                f"({estimate}, the longest {longest}); GRPO cuts completions off there",
            )
        room = run.max_length - run.max_tokens
        long_prompts = [row for row in rows if estimate_tokens(row.prompt_characters) > room]
        if long_prompts and run.algorithm is Algorithm.GRPO:
            yield EnvFinding(
                Severity.WARNING,
                f"{_rows(long_prompts, rows)} a prompt longer than the {room} tokens that "
                f"max_length leaves beside max_tokens ({estimate}); GRPO drops such rows",
            )
        return
    too_long = [
        row
        for row in rows
        if estimate_tokens(row.prompt_characters + row.answer_characters) > run.max_length
    ]
    if too_long:
        yield EnvFinding(
            Severity.WARNING,
            f"{_rows(too_long, rows)} more tokens than max_length = {run.max_length} ({estimate}); "
            "SFT cuts the answer off there",
        )


def _check_rewards(rows: tuple[CheckedRow, ...]) -> Iterator[EnvFinding]:
    """Check the scores that GRPO learns from."""
    scored = [row for row in rows if row.junk]
    answers = [answer for row in scored for answer in _scored_answers(row)]
    failed = [(row, answer) for row in scored for answer in _scored_answers(row) if answer.error]
    if failed:
        row, answer = failed[0]
        yield EnvFinding(
            Severity.ERROR if len(failed) == len(answers) else Severity.WARNING,
            f"the reward failed for {len(failed)} of {len(answers)} answers, first in row "
            f"{row.number}: {answer.error}"
            + ("" if len(failed) == len(answers) else "; in training such answers are not learned"),
            answer.place,
        )
    scores = {answer.score for answer in answers if answer.score is not None}
    if len(scores) == 1 and len(answers) - len(failed) > 1:
        yield EnvFinding(
            Severity.WARNING,
            f"every answer scores {scores.pop():g}, right or wrong; GRPO learns only from "
            "differences between scores",
        )
    elif scores:
        yield from _check_junk(scored)
    seconds = [answer.seconds for answer in answers]
    if seconds and (mean := statistics.fmean(seconds)) > SLOW_SECONDS:
        yield EnvFinding(
            Severity.WARNING,
            f"scoring one answer takes {mean:.1f} s; the GPUs wait for it in every step",
        )


def _check_junk(scored: list[CheckedRow]) -> Iterator[EnvFinding]:
    """Check that a row's own answer scores higher than junk."""
    not_better = [
        row
        for row in scored
        if row.gold is not None
        and row.gold.score is not None
        and (junk := [answer.score for answer in row.junk if answer.score is not None])
        and row.gold.score <= max(junk)
    ]
    if not_better:
        listed = ", ".join(str(row.number) for row in not_better[:_ROWS_LISTED])
        more = " …" if len(not_better) > _ROWS_LISTED else ""
        yield EnvFinding(
            Severity.WARNING,
            f"in {len(not_better)} of {len(scored)} scored rows junk scores as well as the row's "
            f"own answer (row {listed}{more})",
        )


def _scored_answers(row: CheckedRow) -> Iterable[ScoredAnswer]:
    return (*((row.gold,) if row.gold else ()), *row.junk)


def _rows(some: list[CheckedRow], every: tuple[CheckedRow, ...]) -> str:
    """Return the beginning of a sentence, such as "3 of 20 rows (row 1, 5, 9) have"."""
    listed = ", ".join(str(row.number) for row in some[:_ROWS_LISTED])
    more = " …" if len(some) > _ROWS_LISTED else ""
    verb = "has" if len(some) == 1 else "have"
    return f"{len(some)} of {len(every)} rows (row {listed}{more}) {verb}"


def estimate_tokens(characters: int) -> int:
    """Return roughly how many tokens a text of this many characters has."""
    return -(-characters // CHARACTERS_PER_TOKEN)
