"""A rehearsal of an environment: started in a process of its own, and judged afterwards.

``rehearse`` starts it, in an empty folder and with a time limit, and reads what it told;
``judge`` turns that into findings, a pure function.
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
from flashrun.api.env_check_records import CheckedRow, CheckEvent, EnvCheckTask, ScoredAnswer
from flashrun.cli.environments.package import ENTRY_FILE
from flashrun.cli.output.failure import UsageFailure

CHARACTERS_A_TOKEN: Final = 4
"""How long a token is on average; a guess, as there is no tokenizer here."""
SLOW_SECONDS: Final = 1.0
_CHILD: Final = "flashrun_trainer.env_check_process"
_SHOWN: Final = 3


class Trial(NamedTuple):
    """What a rehearsal told, and how its process ended when it did not end by itself."""

    events: tuple[CheckEvent, ...]
    cut_off: str = ""

    @property
    def rows(self) -> tuple[CheckedRow, ...]:
        """Every row that has a prompt."""
        return tuple(event.row for event in self.events if event.row is not None)


class Level(StrEnum):
    """Whether a run would fail."""

    ERROR = "error"
    WARNING = "warning"


class Finding(NamedTuple):
    """One thing about an environment that its author should know."""

    level: Level
    sentence: str
    place: str = ""

    def __str__(self) -> str:
        """Return the finding as compilers write it, so that editors can jump there."""
        return f"{self.place}: {self.sentence}" if self.place else self.sentence


class Plan(NamedTuple):
    """What a run would do with the environment."""

    algorithm: Algorithm | None
    """None when no config says."""
    thinking: bool
    max_tokens: int
    max_length: int


# --- the process --------------------------------------------------------------------------------


def rehearse(
    task: EnvCheckTask, seconds: float, variables: Mapping[str, str], *, verbose: bool = False
) -> Trial:
    """Run ``task`` in a process of its own, with ``variables`` on top of the shell's.

    Raises:
        UsageFailure: there is nothing to try, or nothing to try it with.
    """
    if not (Path(task.folder) / ENTRY_FILE).is_file():
        raise UsageFailure(f"{task.folder} has no {ENTRY_FILE}", "flash env setup writes one")
    if importlib.util.find_spec("freesolo") is None:
        raise UsageFailure(
            "the environment SDK is not installed here", "pip install freesolo==0.4.2"
        )
    with tempfile.TemporaryDirectory(prefix="flash-") as scratch:
        work, events = Path(scratch, "work"), Path(scratch, "events")
        work.mkdir()
        Path(scratch, "task").write_text(task.model_dump_json())
        # In an empty folder: a path relative to where the user is would work here and in no pod.
        ended = _run(
            [sys.executable, "-m", _CHILD, str(Path(scratch, "task")), str(events)],
            work,
            {**os.environ, **variables},
            seconds,
            verbose,
        )
        told = tuple(_events(events))
    if told and told[-1].over:
        return Trial(told)
    doing = next((event.doing for event in reversed(told) if event.doing), "starting")
    return Trial(told, f"{ended} while {doing}")


def _run(
    command: list[str],
    folder: Path,
    variables: Mapping[str, str],
    seconds: float,
    verbose: bool,
) -> str:
    """Run ``command`` and say how it ended; its output goes to standard error, or nowhere."""
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
        with contextlib.suppress(OSError):  # also what the environment has started itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"its process ended with {_ending(code)}"


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _events(path: Path) -> Iterator[CheckEvent]:
    with contextlib.suppress(OSError, ValidationError):  # the last line may be half a line
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            if line:
                yield CheckEvent.model_validate_json(line)


# --- the judgement ------------------------------------------------------------------------------


def judge(trial: Trial, plan: Plan) -> list[Finding]:
    """Return everything that is wrong with an environment, errors first."""
    found = [
        Finding(
            Level.ERROR if event.fault.fatal else Level.WARNING,
            event.fault.sentence,
            event.fault.place,
        )
        for event in trial.events
        if event.fault is not None
    ]
    if trial.cut_off:
        found.append(Finding(Level.ERROR, trial.cut_off))
    if trial.rows:
        found += [*_answers(trial.rows, plan), *_lengths(trial.rows, plan)]
        if plan.algorithm is not Algorithm.SFT:
            found += _rewards(trial.rows, plan)
    return sorted(found, key=lambda finding: finding.level is Level.WARNING)


def _answers(rows: tuple[CheckedRow, ...], plan: Plan) -> Iterator[Finding]:
    """What SFT would learn from."""
    without = [row for row in rows if not row.answer_characters]
    if len(without) == len(rows) and plan.algorithm is Algorithm.SFT:
        yield Finding(Level.ERROR, "no row has an output, so SFT has nothing to learn from")
    elif without and plan.algorithm is not Algorithm.GRPO:
        yield Finding(Level.WARNING, f"{_rows(without, rows)} no output; SFT leaves such rows out")
    unthought = [row for row in rows if row.answer_characters and not row.has_thoughts]
    if plan.thinking and unthought and plan.algorithm is not Algorithm.GRPO:
        yield Finding(
            Level.WARNING,
            f"{_rows(unthought, rows)} no <think>…</think> in the output; with thinking = true, "
            "SFT would teach the model not to reason",
        )
    thought = [row for row in rows if row.has_thoughts]
    if not plan.thinking and thought and plan.algorithm is Algorithm.SFT:
        yield Finding(
            Level.WARNING,
            f"{_rows(thought, rows)} a <think>…</think> block in the output; with thinking = "
            "false, the model is never asked to reason: set thinking = true, or leave it out",
        )


def _lengths(rows: tuple[CheckedRow, ...], plan: Plan) -> Iterator[Finding]:
    estimate = f"estimated at {CHARACTERS_A_TOKEN} characters a token"
    if plan.algorithm is not Algorithm.SFT:
        long = [row for row in rows if tokens(row.answer_characters) > plan.max_tokens]
        if long:
            most = max(tokens(row.answer_characters) for row in long)
            yield Finding(
                Level.WARNING,
                f"{_rows(long, rows)} an answer longer than max_tokens = {plan.max_tokens} "
                f"({estimate}, the longest {most}); GRPO cuts completions off there",
            )
        room = plan.max_length - plan.max_tokens
        wide = [row for row in rows if tokens(row.prompt_characters) > room]
        if wide and plan.algorithm is Algorithm.GRPO:
            yield Finding(
                Level.WARNING,
                f"{_rows(wide, rows)} a prompt longer than the {room} tokens that max_length "
                f"leaves beside max_tokens ({estimate}); GRPO drops such rows",
            )
        return
    whole = [
        row
        for row in rows
        if tokens(row.prompt_characters + row.answer_characters) > plan.max_length
    ]
    if whole:
        yield Finding(
            Level.WARNING,
            f"{_rows(whole, rows)} more tokens than max_length = {plan.max_length} ({estimate}); "
            "SFT cuts the answer off there",
        )


def _rewards(rows: tuple[CheckedRow, ...], plan: Plan) -> Iterator[Finding]:
    """What GRPO would learn from."""
    tried = [row for row in rows if row.junk]
    plays = [play for row in tried for play in _plays(row)]
    failed = [(row, play) for row in tried for play in _plays(row) if play.error]
    if failed:
        row, play = failed[0]
        yield Finding(
            Level.ERROR if len(failed) == len(plays) else Level.WARNING,
            f"the reward failed for {len(failed)} of {len(plays)} answers, first in row "
            f"{row.number}: {play.error}"
            + ("" if len(failed) == len(plays) else "; in training such answers count as 0"),
            play.place,
        )
    scores = {play.score for play in plays if play.score is not None}
    if len(scores) == 1 and len(plays) - len(failed) > 1:
        yield Finding(
            Level.WARNING,
            f"every answer scores {scores.pop():g}, right or wrong; GRPO learns from differences "
            "alone",
        )
    elif scores:
        yield from _no_better(tried)
    seconds = [play.seconds for play in plays]
    if seconds and (mean := statistics.fmean(seconds)) > SLOW_SECONDS:
        yield Finding(
            Level.WARNING,
            f"scoring one answer takes {mean:.1f} s; the GPU waits for it at every step",
        )


def _no_better(tried: list[CheckedRow]) -> Iterator[Finding]:
    beaten = [
        row
        for row in tried
        if row.gold is not None
        and row.gold.score is not None
        and (junk := [play.score for play in row.junk if play.score is not None])
        and row.gold.score <= max(junk)
    ]
    if beaten:
        listed = ", ".join(str(row.number) for row in beaten[:_SHOWN])
        more = " …" if len(beaten) > _SHOWN else ""
        yield Finding(
            Level.WARNING,
            f"in {len(beaten)} of {len(tried)} scored rows junk scores as well as the row's own "
            f"answer (row {listed}{more})",
        )


def _plays(row: CheckedRow) -> Iterable[ScoredAnswer]:
    return (*((row.gold,) if row.gold else ()), *row.junk)


def _rows(some: list[CheckedRow], every: tuple[CheckedRow, ...]) -> str:
    """Return "3 of 20 rows (1, 5, 9) have"."""
    listed = ", ".join(str(row.number) for row in some[:_SHOWN])
    more = " …" if len(some) > _SHOWN else ""
    verb = "has" if len(some) == 1 else "have"
    return f"{len(some)} of {len(every)} rows (row {listed}{more}) {verb}"


def tokens(characters: int) -> int:
    """Return how many tokens a text has, roughly."""
    return -(-characters // CHARACTERS_A_TOKEN)
