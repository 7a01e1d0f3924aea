"""An environment tried without a model, by ``flash env test`` on a laptop.

``python -m flashrun_trainer.env_check_process TASK EVENTS``: rows, prompts, answers and scores go
the way they go in training, through the trainer's own code; answers come from the data and from a
list of junk. It needs the environment SDK and no torch. Each event is one line of the file EVENTS.
"""

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from flashrun.api.env_check_records import CheckedRow, CheckEvent, EnvCheckTask, Fault, ScoredAnswer
from flashrun.api.exits import Exit
from flashrun.api.records import ResolvedEnvironment
from flashrun_trainer.data import environment as environments
from flashrun_trainer.data import rewards
from flashrun_trainer.data.environment import Answer, Environment, Message
from flashrun_trainer.data.episodes import Episode
from flashrun_trainer.pod.trainer_errors import TrainerError

JUNK: Final = ("", "qwxz blorf 0 0 0")
TURNS_LIMIT: Final = 50
"""Most turns of an episode that is only a rehearsal."""
FAULTS_LIMIT: Final = 20
_SHOWN: Final = 200
_FRAME: Final = re.compile(r'^\s*File "(?P<file>.+)", line (?P<line>\d+)', re.MULTILINE)


class Stage:
    """Where a rehearsal happens, and the audience that it is told to."""

    def __init__(self, task: EnvCheckTask, events: IO[str]) -> None:
        self.task = task
        self.folder = Path(task.folder)
        self._events = events

    def tell(self, event: CheckEvent) -> None:
        """Write an event, at once: the next thing may end this process."""
        self._events.write(event.model_dump_json(exclude_defaults=True) + "\n")
        self._events.flush()

    def doing(self, what: str) -> None:
        """Tell what is about to be done."""
        self.tell(CheckEvent(doing=what))

    def fault(self, text: str, place: str = "", *, fatal: bool = True) -> None:
        """Tell of something that is wrong."""
        self.tell(CheckEvent(fault=Fault(sentence=text, place=place, fatal=fatal)))

    def blame(self, error: TrainerError) -> None:
        """Tell of what would end a run."""
        cause = error.__cause__
        place = self.place("".join(traceback.format_exception(cause))) if cause else ""
        self.fault(f"{error.message}; {error.hint}", place)

    def place(self, trace: str) -> str:
        """Return the innermost line of the environment's own code in a traceback."""
        frames = [(Path(frame["file"]), frame["line"]) for frame in _FRAME.finditer(trace)]
        own = [(file, line) for file, line in frames if file.is_relative_to(self.folder)]
        return f"{own[-1][0].relative_to(self.folder)}:{own[-1][1]}" if own else ""


def rehearse(stage: Stage) -> None:
    """Try everything that needs no model, as far as the environment lets it."""
    whole = _check_data(stage)
    stage.doing(f"importing {stage.folder.name}/environment.py")
    try:
        environment = environments.load_folder(stage.folder, _spec(stage.task))
    except TrainerError as error:
        if whole or error.code != Exit.DATA:
            stage.blame(error)
        return
    stage.tell(CheckEvent(rows=len(environment.examples)))
    _rows(stage, environment, whole)


def _spec(task: EnvCheckTask) -> ResolvedEnvironment:
    return ResolvedEnvironment(
        id="this/environment", digest="0" * 64, params=task.params, split=task.split
    )


# --- the data -----------------------------------------------------------------------------------


def _check_data(stage: Stage) -> bool:
    """Say what is wrong with each row of the split's file, by its line; return whether all is well.

    The SDK stops at the first bad row, and does not say which one it is.
    """
    try:
        path = environments.dataset_path(stage.folder, _spec(stage.task))
    except TrainerError as error:
        stage.fault(f"{error.message}; {error.hint}")
        return False
    if path is None:
        return True
    name = path.relative_to(stage.folder).as_posix()
    stage.doing(f"reading {name}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        stage.fault(f"it cannot be read: {error}", name)
        return False
    faults = list(row_faults(text)) if path.suffix == ".jsonl" else []
    for line, fault in faults[:FAULTS_LIMIT]:
        stage.fault(fault.sentence, f"{name}:{line}", fatal=fault.fatal)
    if len(faults) > FAULTS_LIMIT:
        stage.fault(f"{len(faults) - FAULTS_LIMIT} more rows have something wrong", name)
    return not any(fault.fatal for _, fault in faults)


def row_faults(text: str) -> Iterator[tuple[int, Fault]]:
    """Yield the line and the fault of each row of a JSON Lines file that is no good row."""
    rows = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        rows += 1
        try:
            value = json.loads(line)
        except ValueError as error:
            yield number, Fault(sentence=f"the row is not JSON: {error}")
            continue
        except RecursionError:
            yield number, Fault(sentence="the row is nested too deeply")
            continue
        yield from ((number, fault) for fault in _row_faults(value))
    if not rows:
        yield 1, Fault(sentence="the file has no rows")


def _row_faults(value: Any) -> Iterator[Fault]:
    record = {"input": value} if isinstance(value, str) else value
    if not isinstance(record, dict):
        yield Fault(
            sentence=f"the row is {_kind(value)}, and must be an object with input, and output "
            "where there is an answer to imitate"
        )
        return
    if record.get("input") is None:
        near = f"; it has {', '.join(map(str, record))}" if record else ""
        yield Fault(sentence=f"the row has no input{near}")
    elif isinstance(record["input"], str) and not record["input"].strip():
        yield Fault(sentence="its input is empty", fatal=False)
    yield from _output_faults(record.get("output"))
    metadata = record.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        yield Fault(
            sentence=f"its metadata is {_kind(metadata)}, and is ignored: it must be an object",
            fatal=False,
        )


def _output_faults(output: Any) -> Iterator[Fault]:
    from freesolo.datasets import target_messages

    try:
        messages = target_messages(output)
    except ValueError as error:
        yield Fault(sentence=f"its output is no conversation: {error}")
        return
    if environments.almost_messages(output):
        yield Fault(
            sentence="its output looks like a conversation, and is learned as the text of its "
            f"JSON: {environments.MESSAGES_HINT}",
            fatal=False,
        )
    if output is not None and not any(map(environments.says_something, messages)):
        yield Fault(sentence="its output is empty: SFT has nothing to learn from it", fatal=False)


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "a list" if isinstance(value, list) else "text")


# --- the environment ----------------------------------------------------------------------------


def _rows(stage: Stage, environment: Environment, whole: bool) -> None:
    """Build every prompt and answer; score the first rows. ``whole`` says that the data is."""
    failed = 0
    answers = _Answers()
    for number, example in enumerate(environment.examples, 1):
        stage.doing(f"building the prompt of row {number}")
        try:
            prompt, completion = environment.prompt(example), environment.completion(example)
        except TrainerError as error:
            if whole or error.code != Exit.DATA:
                stage.blame(error)
            failed += 1
            if failed == FAULTS_LIMIT:
                return
            continue
        row = _row(number, prompt, completion)
        if number <= stage.task.scored:
            stage.doing(f"scoring row {number}")
            row = _scored(stage, environment, answers, row, example, completion)
        stage.tell(CheckEvent(row=row))


def _row(number: int, prompt: list[Message], completion: list[Message]) -> CheckedRow:
    answer = "\n".join(said(completion))
    return CheckedRow(
        number=number,
        prompt=_text(prompt[-1])[:_SHOWN],
        prompt_characters=sum(len(_text(message)) for message in prompt),
        answer=answer[:_SHOWN],
        answer_characters=len(answer),
        has_thoughts=any(map(environments.reasons, completion)),
    )


def said(completion: Sequence[Message]) -> list[str]:
    """Return what the assistant says in a completion, turn by turn."""
    turns = [_text(message) for message in completion if message.get("role") == "assistant"]
    return turns if any(turns) else []


def _text(message: Message) -> str:
    return str(message.get("content") or "")


class _Answers:
    """The data's own answers; one row's answer is another row's junk."""

    def __init__(self) -> None:
        self._before: list[str] = []

    def junk(self, gold: list[str]) -> list[list[str]]:
        """Return answers that deserve nothing, and remember ``gold`` for the next row."""
        found = [[text] for text in JUNK if [text] != gold]
        if self._before and self._before != gold:
            found.append(self._before)
        self._before = gold or self._before
        return found


def _scored(
    stage: Stage,
    environment: Environment,
    answers: _Answers,
    row: CheckedRow,
    example: Any,
    completion: list[Message],
) -> CheckedRow:
    gold = said(completion)
    junk = answers.junk(gold)
    play = _episode if environment.is_multi_turn else _answer
    plays = [play(stage, environment, example, texts) for texts in ([gold] if gold else []) + junk]
    return row.replace(gold=plays[0] if gold else None, junk=tuple(plays[len(plays) - len(junk) :]))


def _answer(stage: Stage, environment: Environment, example: Any, texts: list[str]) -> ScoredAnswer:
    began = time.monotonic()
    answer = Answer(texts[-1], stage.task.thinking)
    [score] = rewards.of_responses(environment, [example], [answer])
    return _play(stage, score, time.monotonic() - began)


def _episode(
    stage: Stage, environment: Environment, example: Any, texts: list[str]
) -> ScoredAnswer:
    """Play an episode: the given answers in order, the last one again and again."""
    began = time.monotonic()
    turns = 0
    try:
        limit = min(environment.turns(example), TURNS_LIMIT)
        episode = Episode(example, environment.prompt(example), [], turns_left=limit)
        while not episode.over and turns < limit:
            text = texts[min(turns, len(texts) - 1)]
            turns += 1
            episode.answer(environment, [], Answer(text, stage.task.thinking))
        finished = episode.finished()
    except Exception as error:
        finished = rewards.failed(error.__cause__ or error)
    [score] = rewards.of_responses(environment, [example], [finished])
    return _play(stage, score, time.monotonic() - began, turns)


def _play(stage: Stage, score: rewards.Score, seconds: float, turns: int = 1) -> ScoredAnswer:
    return ScoredAnswer(
        score=None if score.error else score.reward,
        error=score.error,
        place=stage.place(score.trace),
        turns=turns,
        seconds=seconds,
    )


def main(arguments: Sequence[str]) -> None:
    """Rehearse the task in the first file; write events to the second."""
    task, path = EnvCheckTask.model_validate_json(Path(arguments[0]).read_bytes()), arguments[1]
    with Path(path).open("w", encoding="utf-8") as events:
        stage = Stage(task, events)
        rehearse(stage)
        stage.tell(CheckEvent(over=True))
    sys.stdout.flush()
    os._exit(0)  # threads that the environment left behind are not waited for


if __name__ == "__main__":
    main(sys.argv[1:])
