"""The process of ``flash env test``: checks an environment on a laptop, without a model's weights.

``python -m flashrun_trainer.env_check_process TASK EVENTS``. Rows, prompts, answers and scores pass
through the same code as in training. The answers come from the dataset, and from a list of junk
answers that should score low. It needs the environment SDK, and for a tokenizer transformers, but
not PyTorch. TASK is a file with an
``EnvCheckTask``, EVENTS a file to which one ``CheckEvent`` per line is written.
"""

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from flashrun.api.config import Algorithm
from flashrun.api.env_check_records import CheckedRow, CheckEvent, EnvCheckTask, Fault, ScoredAnswer
from flashrun.api.exits import Exit
from flashrun.api.records import ResolvedEnvironment
from flashrun.api.sentences import with_hint
from flashrun.api.trainer_modules import IMAGE_MODULES
from flashrun_trainer import env_check_modules
from flashrun_trainer.data import conversations, held_out, rewards, unread_keys
from flashrun_trainer.data import messages as chat_messages
from flashrun_trainer.data.chat_template import encode, tokenize_messages
from flashrun_trainer.data.conversations import Conversation
from flashrun_trainer.data.dataset import dataset_path
from flashrun_trainer.data.environment import Environment, load_folder, naming_example
from flashrun_trainer.data.episodes import Episode, check_template, play_turns
from flashrun_trainer.data.messages import Answer, Message
from flashrun_trainer.data.openings import Openings
from flashrun_trainer.data.reasoning import THINK, ReasoningForm
from flashrun_trainer.data.template_forms import template_form
from flashrun_trainer.data.tool_definitions import Tool
from flashrun_trainer.data.turn_ends import end_of_turn_token
from flashrun_trainer.pod.trainer_errors import TrainerError, format_error, valid_text

JUNK: Final = ("", "qwxz blorf 0 0 0")
"""Answers that are wrong for any example."""
TURNS_LIMIT: Final = 50
"""Most turns of an episode in a check."""
FAULTS_LIMIT: Final = 20
"""Most faults that are reported one by one."""
_LOST_ROWS: Final = "a run of GRPO goes on, and learns nothing from such an episode"
_LOST_RUN: Final = "a run of GRPO ends when these are more than a tenth of its rows"
_BYTE_ORDER_MARK: Final = "\ufeff"
_SHOWN_CHARACTERS: Final = 200
_FRAME: Final = re.compile(r'^\s*File "(?P<file>.+)", line (?P<line>\d+)', re.MULTILINE)


class CheckReporter:
    """The task of a check, and the file to which its events are written."""

    def __init__(self, task: EnvCheckTask, events: IO[str]) -> None:
        self.task = task
        self.folder = Path(task.folder)
        self.tokenizer: Any = None
        """The model's tokenizer; None when the check has no model."""
        self.reasoning = THINK
        """How the model marks its reasoning."""
        self._events = events

    def write(self, event: CheckEvent) -> None:
        """Write an event and flush it: the next line of the environment may end this process."""
        self._events.write(json.dumps(_writable(event.model_dump(exclude_defaults=True))) + "\n")
        self._events.flush()

    def announce(self, what: str) -> None:
        """Write what is done next."""
        self.write(CheckEvent(doing=what))

    def fault(self, text: str, place: str = "", *, fatal: bool = True) -> None:
        """Write a fault; a ``fatal`` one would end a run."""
        self.write(CheckEvent(fault=Fault(sentence=text, place=place, fatal=fatal)))

    def error(self, error: TrainerError, *, fatal: bool = True) -> None:
        """Write an error as a fault; a ``fatal`` one would end a run."""
        cause, hint = error.__cause__, error.hint
        place = self.find_place("".join(traceback.format_exception(cause))) if cause else ""
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            module = cause.name.partition(".")[0]
            if module in IMAGE_MODULES:
                hint = f"the trainer image has {module}: install it here to check this environment"
        self.fault(with_hint(error.message, hint), place, fatal=fatal)

    def find_place(self, trace: str) -> str:
        """Return the innermost line of the environment's own code in a traceback, or ""."""
        frames = [(Path(frame["file"]), frame["line"]) for frame in _FRAME.finditer(trace)]
        own = [(file, line) for file, line in frames if file.is_relative_to(self.folder)]
        return f"{own[-1][0].relative_to(self.folder)}:{own[-1][1]}" if own else ""


def _writable(value: Any) -> Any:
    """Return a JSON value whose texts are valid: a row may have half a character."""
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, dict):
        return {_writable(key): _writable(item) for key, item in value.items()}
    return [_writable(item) for item in value] if isinstance(value, list | tuple) else value


def check_environment(reporter: CheckReporter) -> None:
    """Check everything that needs no weights, until something fails that the rest depends on."""
    data_is_valid = _check_data(reporter, _spec(reporter.task))
    reporter.announce(f"importing {reporter.folder.name}/environment.py")
    try:
        environment = load_folder(
            reporter.folder, _spec(reporter.task), python=_python(reporter.task)
        )
    except TrainerError as error:
        if data_is_valid or error.code != Exit.DATA:  # else its fault is reported already
            reporter.error(error)
        return
    reporter.write(CheckEvent(rows=len(environment.examples)))
    if reporter.task.model and not _load_tokenizer(reporter, environment):
        return
    if environment.row_remark:
        reporter.fault(environment.row_remark, fatal=False)
    _check_rows(reporter, environment, data_is_valid)
    _check_held_out(reporter, environment)


def _load_tokenizer(reporter: CheckReporter, environment: Environment) -> bool:
    """Load the tokenizer of the task's model; return whether it can be used."""
    from flashrun_trainer import model

    reporter.announce(f"loading the tokenizer in {reporter.task.model}")
    try:
        reporter.tokenizer = model.load_tokenizer(Path(reporter.task.model))
        reporter.reasoning = template_form(reporter.tokenizer).reasoning
        if environment.is_multi_turn:
            check_template(environment, reporter.tokenizer, reporter.task.thinking)
    except TrainerError as error:
        reporter.error(error)
        return False
    except Exception as error:  # each tokenizer raises its own
        reporter.fault(
            f"the model's tokenizer cannot be loaded: {format_error(error)}", reporter.task.model
        )
        return False
    return True


def _spec(task: EnvCheckTask) -> ResolvedEnvironment:
    return ResolvedEnvironment(
        id=task.id or Path(task.folder).name,
        digest="0" * 64,
        params=task.params,
        split=task.split,
    )


def _python(task: EnvCheckTask) -> Path | None:
    """Return the interpreter for an environment of ``verifiers``; None for that of this process."""
    return Path(task.python) if task.python else None


# --- the data -----------------------------------------------------------------------------------


def _check_data(reporter: CheckReporter, spec: ResolvedEnvironment, *, fatal: bool = True) -> bool:
    """Report the faults of each row of the split's file; return whether none would end a run.

    The SDK stops at the first bad row, and does not name it. ``fatal`` is False for a split without
    which a run goes on.
    """
    try:
        path = dataset_path(reporter.folder, spec)
    except TrainerError as error:
        reporter.fault(with_hint(error.message, error.hint))
        return False
    if path is None:
        return True
    name = path.relative_to(reporter.folder).as_posix()
    reporter.announce(f"reading {name}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reporter.fault(f"the file cannot be read: {error}", name, fatal=fatal)
        return False
    faults = list(row_faults(text)) if path.suffix == ".jsonl" else []
    for line, fault in faults[:FAULTS_LIMIT]:
        reporter.fault(fault.sentence, f"{name}:{line}", fatal=fatal and fault.fatal)
    if len(faults) > FAULTS_LIMIT:
        reporter.fault(f"{len(faults) - FAULTS_LIMIT} more rows have faults", name, fatal=fatal)
    return not any(fault.fatal for _, fault in faults)


def row_faults(text: str) -> Iterator[tuple[int, Fault]]:
    """Yield the line number and the fault of each faulty row of a JSON Lines file."""
    rows = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        rows += 1
        if line.startswith(_BYTE_ORDER_MARK):
            yield (
                number,
                Fault(
                    sentence="the row begins with a byte order mark, as some editors save at the "
                    "beginning of a file, and JSON has none: save the file as UTF-8 without it"
                ),
            )
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, Fault(sentence=f"the row is not JSON: {error}")
            continue
        except ValueError:
            yield number, Fault(sentence="a number in the row has too many digits")
            continue
        except RecursionError:
            yield number, Fault(sentence="the row is nested too deeply")
            continue
        if "\\u" in line and valid_text(shown := json.dumps(value, ensure_ascii=False)) != shown:
            yield (
                number,
                Fault(
                    sentence="the row has half a character (a lone surrogate), which no tokenizer "
                    "accepts: write it as valid Unicode"
                ),
            )
            continue
        yield from ((number, fault) for fault in _row_faults(value))
    if not rows:
        yield 1, Fault(sentence="the file has no rows")


def _row_faults(value: Any) -> Iterator[Fault]:
    record = {"input": value} if isinstance(value, str) else value
    if not isinstance(record, dict):
        yield Fault(
            sentence=f"the row is {_kind(value)}, and must be an object with input, and for SFT "
            "with output"
        )
        return
    try:
        read = conversations.read_row(record)
        conversations.row_tools(record, record.get("output"))
    except ValueError as error:
        yield Fault(sentence=str(error))
        return
    if isinstance(read["input"], str) and not read["input"].strip():
        yield Fault(sentence="the input is empty", fatal=False)
    yield from _output_faults(read.get("output"))
    metadata = record.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        yield Fault(
            sentence=f"the metadata is {_kind(metadata)}, and is ignored: it must be an object",
            fatal=False,
        )


def _output_faults(output: Any) -> Iterator[Fault]:
    try:
        messages = conversations.read_output(output)
    except ValueError as error:
        yield Fault(sentence=f"the output is not a conversation: {error}")
        return
    learned = Conversation([], messages, "it")
    if unread_keys.json_remark([learned]):
        yield Fault(
            sentence="the output looks like a conversation but is learned as JSON text: a "
            'conversation is {"messages": […]}, with role and content in each message',
            fatal=False,
        )
    if keys := unread_keys.unread_keys(messages):
        yield Fault(
            sentence=f"a message has {', '.join(keys)}, which nobody reads but perhaps the model's "
            "chat template",
            fatal=False,
        )
    if output is not None and not any(map(chat_messages.is_learnable, messages)):
        yield Fault(sentence="the output is empty: SFT has nothing to learn from it", fatal=False)


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "a list" if isinstance(value, list) else "text")


def _check_held_out(reporter: CheckReporter, environment: Environment) -> None:
    """Check the split on which a run is evaluated: its rows, its prompts, and what it shares."""
    task = reporter.task
    if not task.held_out or task.held_out == task.split:
        return
    spec, required = held_out.split_spec(_spec(task), task.held_out), task.held_out_required
    if not held_out.has_split(reporter.folder, spec, environment):
        if required:
            reporter.fault(
                f"there is no dataset/{task.held_out}.jsonl, on which the run is to be evaluated"
            )
        return
    if not _check_data(reporter, spec, fatal=required):
        return
    reporter.announce(f"loading split {task.held_out}")
    try:
        split = load_folder(reporter.folder, spec, python=_python(task))
    except TrainerError as error:
        reporter.fault(f"split {task.held_out}: {error.message}", fatal=required)
        return
    if remark := held_out.overlap_remark(environment, split, task.held_out):
        reporter.fault(remark, fatal=False)
    _check_held_out_rows(reporter, split)


def _check_held_out_rows(reporter: CheckReporter, environment: Environment) -> None:
    """Build every prompt and completion of the held-out split."""
    name, faults = reporter.task.held_out, 0
    for number, example in enumerate(environment.examples, 1):
        reporter.announce(f"building the prompt of row {number} of split {name}")
        try:
            _build_conversation(reporter, environment, example)
        except TrainerError as error:
            reporter.fault(
                f"a row of split {name} is left out of evaluations: {error.message}", fatal=False
            )
            faults += 1
            if faults == FAULTS_LIMIT:
                return


# --- the environment ----------------------------------------------------------------------------


def _check_rows(reporter: CheckReporter, environment: Environment, data_is_valid: bool) -> None:
    """Build every prompt and completion, and score the first rows."""
    failed = 0
    junk_answers = _JunkAnswers()
    opens_episodes = environment.is_multi_turn and reporter.task.algorithm is not Algorithm.SFT
    openings = Openings(len(environment.examples))
    for number, example in enumerate(environment.examples, 1):
        reporter.announce(f"building the prompt of row {number}")
        build = partial(_build_conversation, reporter, environment, example)
        try:
            conversation = openings.open(number - 1, build) if opens_episodes else build()
        except TrainerError as error:
            if data_is_valid or error.code != Exit.DATA:
                reporter.error(error)
            failed += 1
            if failed == FAULTS_LIMIT:
                break
            continue
        if conversation is None:
            if len(openings.failures) <= FAULTS_LIMIT:
                reporter.error(openings.failures[number - 1], fatal=False)
            continue
        prompt, completion, *_ = conversation
        row = _describe_row(number, prompt, completion, reporter.reasoning)
        if number <= reporter.task.scored:
            reporter.announce(f"scoring row {number}")
            row = _with_scores(reporter, environment, junk_answers, row, example, completion)
        reporter.write(CheckEvent(row=row))
    if lost := len(openings.failures):
        ends = openings.too_many_failed
        reporter.fault(
            f"{lost} of {len(environment.examples)} rows have an episode that cannot be opened; "
            + (_LOST_RUN if ends else _LOST_ROWS),
            fatal=ends,
        )


def _build_conversation(
    reporter: CheckReporter, environment: Environment, example: Any
) -> Conversation:
    """Return an example as SFT learns it, after the model's template has read its prompt."""
    conversation = environment.conversation(example)
    with naming_example(conversation.name):
        _tokenize(reporter, conversation.prompt, conversation.tools)
    return conversation


def _tokenize(reporter: CheckReporter, messages: list[Message], tools: Sequence[Tool]) -> list[int]:
    """Return a prompt as the model's token ids; empty without a model."""
    if reporter.tokenizer is None:
        return []
    return tokenize_messages(reporter.tokenizer, messages, reporter.task.thinking, True, tools)


def _answer_ids(reporter: CheckReporter, text: str) -> list[int]:
    """Return an answer as token ids, as if the model had sampled it; empty without a model."""
    if reporter.tokenizer is None:
        return []
    end = end_of_turn_token(reporter.tokenizer, reporter.task.thinking)
    return [*encode(reporter.tokenizer, text), end]


def _as_sampled(reporter: CheckReporter, text: str) -> Answer:
    """Return an answer as scorers would see it from the model.

    Its reasoning may be marked as the model does it, or with ``<think>``: training writes both as
    the model does, and a model with a channel for its reasoning always uses it.
    """
    form = reporter.reasoning
    marks = next((marks for marks in (form, THINK) if marks.end in text), form)
    return Answer(text, reporter.task.thinking or form.is_channel, form=marks)


def _describe_row(
    number: int, prompt: list[Message], completion: list[Message], form: ReasoningForm
) -> CheckedRow:
    answer = "\n".join(assistant_texts(completion) or _called(completion))
    return CheckedRow(
        number=number,
        prompt=_text(prompt[-1])[:_SHOWN_CHARACTERS],
        prompt_characters=sum(len(_text(message)) for message in prompt),
        answer=answer[:_SHOWN_CHARACTERS],
        answer_characters=len(answer),
        has_thoughts=any(chat_messages.has_reasoning(message, form) for message in completion),
    )


def assistant_texts(completion: Sequence[Message]) -> list[str]:
    """Return the text of each assistant's turn of a completion; empty when all are empty."""
    turns = [_text(message) for message in completion if message.get("role") == "assistant"]
    return turns if any(turns) else []


def _called(completion: Sequence[Message]) -> list[str]:
    """Return the calls of tools of each assistant's turn that has some, as JSON."""
    calls = (turn.get("tool_calls") for turn in completion if turn.get("role") == "assistant")
    return [json.dumps(each, ensure_ascii=False) for each in calls if each]


def _text(message: Message) -> str:
    return str(message.get("content") or "")


class _JunkAnswers:
    """Wrong answers to each row; the right answer to the row before is one of them."""

    def __init__(self) -> None:
        self._previous: list[str] = []

    def next_row(self, gold: list[str]) -> list[list[str]]:
        """Return wrong answers to a row whose right answer is ``gold``, one text per turn."""
        junk = [[text] for text in JUNK if [text] != gold]
        if self._previous and self._previous != gold:
            junk.append(self._previous)
        self._previous = gold or self._previous
        return junk


def _with_scores(
    reporter: CheckReporter,
    environment: Environment,
    junk_answers: _JunkAnswers,
    row: CheckedRow,
    example: Any,
    completion: list[Message],
) -> CheckedRow:
    """Return the row with the scores of the dataset's own answer (gold) and of junk answers."""
    gold = assistant_texts(completion)
    score = _score_episode if environment.is_multi_turn else _score_answer
    junk = junk_answers.next_row(gold)
    gold_score = score(reporter, environment, example, gold) if gold else None
    junk_scores = tuple(score(reporter, environment, example, texts) for texts in junk)
    return row.replace(gold=gold_score, junk=junk_scores)


def _score_answer(
    reporter: CheckReporter, environment: Environment, example: Any, texts: list[str]
) -> ScoredAnswer:
    """Score the first of ``texts`` that is not empty: it answers the prompt.

    Further ones answer what the row's own conversation asks later, or the results of tools.
    """
    began = time.monotonic()
    answer = _as_sampled(reporter, next(filter(None, texts), ""))
    [score] = rewards.score_responses(environment, [example], [answer])
    return _scored_answer(reporter, score, time.monotonic() - began)


def _score_episode(
    reporter: CheckReporter, environment: Environment, example: Any, texts: list[str]
) -> ScoredAnswer:
    """Play and score an episode: ``texts`` are the answers in order; the last one is repeated."""
    began = time.monotonic()
    tokenizer, thinking, turns = reporter.tokenizer, reporter.task.thinking, 0
    try:
        limit = min(environment.max_turns(example), TURNS_LIMIT)
        example = environment.begin_episode(example)
        prompt = environment.prompt(example)
        ids = _tokenize(reporter, prompt, environment.tools(example))
        episode = Episode(example, prompt, ids, turns_left=limit)
        while not episode.done and turns < limit:
            text = texts[min(turns, len(texts) - 1)]
            turns += 1
            turn = (episode, _answer_ids(reporter, text), _as_sampled(reporter, text))
            [replies] = play_turns(environment, [turn])
            if replies and tokenizer is not None:
                episode.add_reply(tokenizer, replies, thinking, sys.maxsize)
        response = episode.to_response()
    except Exception as error:
        response = rewards.failed_score(error.__cause__ or error)
    [score] = rewards.score_responses(environment, [example], [response])
    return _scored_answer(reporter, score, time.monotonic() - began, turns)


def _scored_answer(
    reporter: CheckReporter, score: rewards.Score, seconds: float, turns: int = 1
) -> ScoredAnswer:
    return ScoredAnswer(
        score=None if score.error else score.reward,
        error=score.error,
        place=reporter.find_place(score.trace),
        turns=turns,
        seconds=seconds,
    )


def main(arguments: Sequence[str]) -> None:
    """Check the task in the first file; write events to the second."""
    task, path = EnvCheckTask.model_validate_json(Path(arguments[0]).read_bytes()), arguments[1]
    with Path(path).open("w", encoding="utf-8") as events:
        reporter = CheckReporter(task, events)
        if task.modules:
            sys.path[:] = env_check_modules.image_path(Path(task.modules), sys.path)
        if task.site:
            sys.path.append(task.site)  # the image's packages come first, as in a pod
        check_environment(reporter)
        reporter.write(CheckEvent(over=True))
    sys.stdout.flush()
    os._exit(0)  # does not wait for threads that the environment has left behind


if __name__ == "__main__":
    main(sys.argv[1:])
