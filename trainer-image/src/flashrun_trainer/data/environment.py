"""The user's environment: loaded through the ``freesolo`` SDK, and asked for prompts and answers.

Whatever fails in the environment's own code ends the run with one sentence; the traceback goes to
the log.
"""

import hashlib
import json
import logging
import sys
import traceback
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedEnvironment
from flashrun_trainer.pod.mounts import Pod
from flashrun_trainer.pod.trainer_errors import TrainerError, sentence

log = logging.getLogger(__name__)

Message = dict[str, Any]
Item = TypeVar("Item")
Found = TypeVar("Found")

FAILURES: Final = (Exception, SystemExit, KeyboardInterrupt, CancelledError)
"""What an environment may raise: some run what the model writes, and models write ``exit()``."""
MESSAGES_HINT: Final = 'that needs {"messages": […]} and nothing else, with role and content'
_MODULE: Final = "environment.py"
_CONTRACT: Final = "TRAINING_CONTRACT.md"
_SUFFIXES: Final = (".jsonl", ".json")
_ROLES: Final = ("system", "user", "assistant", "tool")
_PUSH_HINT: Final = "correct the environment and publish it again with flash env push"


class Answer(str):
    """What the model answered, as scorers see it: reasoning is left out, and kept beside."""

    thinking: str
    completion: str
    raw: str

    def __new__(cls, raw: str, thinks: bool = True, opened: bool = False) -> "Answer":
        """Split ``raw``; ``opened`` says that the prompt itself ended with ``<think>``.

        Reasoning that never ends leaves no answer. A run whose model does not think (``thinks``)
        has no reasoning to leave out: what it says between such tags is part of its answer.
        """
        if not thinks:
            return cls._made(raw, "", raw, raw)
        before, closed, after = raw.rpartition("</think>")
        thinking = before if closed else raw if opened or "<think>" in raw else ""
        answer = after if closed else "" if thinking else raw
        _, found, inside = thinking.partition("<think>")
        thinking = inside if found and not opened else thinking
        return cls._made(answer.strip() if closed else answer, thinking, answer, raw)

    @classmethod
    def _made(cls, text: str, thinking: str, completion: str, raw: str) -> "Answer":
        self = super().__new__(cls, text)
        self.thinking, self.completion, self.raw = thinking, completion, raw
        return self

    def __getnewargs__(self) -> tuple[str, bool]:  # type: ignore[override]
        """Return what a copy is made of: the text is split already, and the rest follows."""
        return str(self), False

    @property
    def first_thought(self) -> str:
        """The first span of reasoning; its length is what the length penalty counts."""
        return self.thinking.partition("</think>")[0]


@dataclass(frozen=True)
class Environment:
    """A loaded environment with its examples."""

    sdk: Any
    examples: Sequence[Any]
    contract: str
    """Text of the system prompt; empty for none."""

    def __post_init__(self) -> None:
        """Let the SDK, too, score on one thread where the environment wants that."""
        if not getattr(self.sdk, "reward_thread_safe", True):
            self.sdk.max_score_concurrency = 1

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the examples, whatever file or code they came from."""
        from freesolo.utils.core import json_safe_value

        found = hashlib.sha256()
        for example in self.examples:
            # Examples from code may hold what is no JSON, such as tables with pairs as keys.
            row = json_safe_value([example.input, example.output, example.metadata])
            found.update(json.dumps(row, sort_keys=True).encode() + b"\n")
        return found.hexdigest()

    @property
    def is_multi_turn(self) -> bool:
        """Whether an episode has more than one answer."""
        from freesolo.environments import EnvironmentMultiTurn

        return isinstance(self.sdk, EnvironmentMultiTurn)

    @cached_property
    def threads(self) -> int:
        """How many threads may score at once; with 1 it is the caller's own."""
        return max(1, int(getattr(self.sdk, "max_score_concurrency", 1)))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="score")

    def prompt(self, example: Any) -> list[Message]:
        """Return the messages that open an episode, the contract as system prompt among them.

        Raises:
            TrainerError: the environment fails, or what it gives are no messages.
        """
        with blamed(f"building the prompt of {row_name(example)}"):
            return self.opening(example)

    def opening(self, example: Any) -> list[Message]:
        """Return the same for one episode; raises whatever the environment raises."""
        messages = checked(self.sdk.start_episode(example, self.contract))
        return _with_contract(messages, self.contract)

    def completion(self, example: Any) -> list[Message]:
        """Return the messages that SFT imitates; what fails there is mostly the row's output.

        Raises:
            TrainerError: the environment fails, or the output is of no known shape.
        """
        with blamed(
            f"reading the output of {row_name(example)}", Exit.DATA, Reason.DATASET_INVALID
        ):
            return checked(self.sdk.sft_completion(example))

    def turns(self, example: Any) -> int:
        """Return how many answers an episode has at most.

        Raises:
            TrainerError: the environment fails, or gives no such number.
        """
        with blamed(f"asking for the turns of {row_name(example)}"):
            turns = int(self.sdk.max_episode_turns(example))
            if turns < 1:
                raise ValueError(f"max_episode_turns gave {turns}, and must give 1 or more")
        return turns

    def map(self, ask: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
        """Ask the environment about every item, on as many threads as it allows, in order."""
        if self.threads == 1:
            return [ask(item) for item in items]
        return list(self._pool.map(ask, items))


def load(pod: Pod, spec: ResolvedEnvironment) -> Environment:
    """Import the environment and read its examples.

    Raises:
        TrainerError: its code fails, or the split is missing or empty.
    """
    # The image's own packages come first: a run cannot replace what the trainer was tested with.
    sys.path.append(str(pod.site))
    return load_folder(pod.environment, spec)


def load_folder(folder: Path, spec: ResolvedEnvironment) -> Environment:
    """Import the environment in ``folder`` and read its examples; raises ``TrainerError``."""
    from freesolo.environments import load_environment

    module = folder / _MODULE
    if not module.is_file():
        raise TrainerError(
            Exit.ENVIRONMENT,
            Reason.ENVIRONMENT_INVALID,
            f"the package of {spec.id} has no {_MODULE} at its root",
            _PUSH_HINT,
        )
    contract_path = folder / _CONTRACT
    with blamed(f"reading {_CONTRACT}"):
        contract = str(spec.params.get("contract_text") or _text(contract_path))
    data = dataset_path(folder, spec)
    extras: dict[str, Any] = {"dataset_path": str(data)} if data else {}
    extras |= {"contract_path": str(contract_path)} if contract_path.is_file() else {}
    with blamed(f"importing {_MODULE}"):
        sdk = load_environment(f"{module}:load_environment", **{**extras, **spec.params})
    with blamed(_reading(data, folder), Exit.DATA, Reason.DATASET_INVALID):
        examples = _examples(sdk, spec.params, data)
    if not examples:
        raise TrainerError(
            Exit.DATA,
            Reason.DATASET_EMPTY,
            f"split {spec.split!r} of {spec.id} has no examples{_strange(folder)}",
            "add rows with an input, and for SFT an output, to the dataset",
        )
    with blamed("asking how many threads may score (max_score_concurrency)"):
        loaded = Environment(sdk, examples, contract)
        log.info("up to %d threads score at once", loaded.threads)
    # The digest is taken now, because the environment's code may change its examples later.
    log.info(
        "environment %s: %d examples of split %s, SHA-256 %s",
        *(spec.id, len(examples), spec.split, loaded.digest),
    )
    return loaded


@contextmanager
def blamed(
    doing: str, code: Exit = Exit.ENVIRONMENT, reason: Reason = Reason.ENVIRONMENT_FAILED
) -> Iterator[None]:
    """Turn whatever the environment raises into an end that names the error."""
    try:
        yield
    except TrainerError:
        raise
    except FAILURES as error:
        traceback.print_exc()
        raise TrainerError(
            code, reason, f"the environment failed while {doing}: {sentence(error)}", _hint(error)
        ) from error


@contextmanager
def naming(example: str) -> Iterator[None]:
    """Name the example in whatever is wrong with it."""
    try:
        yield
    except TrainerError as error:
        said = f"{example}: {error.message}"
        raise TrainerError(error.code, error.reason, said, error.hint) from error.__cause__


def _hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"add the package that provides {error.name} to [environment].pip"
    if isinstance(error, KeyError) and str(error).strip("'").isupper():
        return f"is it a secret? list {error} in [environment].secrets"
    return _PUSH_HINT


def dataset_path(folder: Path, spec: ResolvedEnvironment) -> Path | None:
    """Return the file of the run's split, or None when the package has no data at all.

    Raises:
        TrainerError: the package has data, but not this split.
    """
    given = spec.params.get("dataset_path")
    if isinstance(given, str):
        return _packaged(folder, given)
    if "records" in spec.params:
        return None
    for place in (folder / "dataset", folder):
        for suffix in _SUFFIXES:
            if (path := place / f"{spec.split}{suffix}").is_file():
                return path
    there = splits(folder)
    if not there and "split" not in spec.params:
        return None
    listed = ", ".join(there) if there else f"no dataset at all{_strange(folder)}"
    raise TrainerError(
        Exit.DATA,
        Reason.SPLIT_MISSING,
        f"the package of {spec.id} has no dataset/{spec.split}.jsonl; it has {listed}",
        "set [environment.params] split to one of these, or add the file and push again",
    )


def splits(folder: Path) -> list[str]:
    """Return the splits that a package has."""
    packaged = (folder / "dataset").glob("*")
    root = (folder / f"{name}.jsonl" for name in ("train", "test", "validation", "eval"))
    files = (path for path in (*packaged, *root) if path.suffix in _SUFFIXES and path.is_file())
    return sorted({path.stem for path in files})


def _strange(folder: Path) -> str:
    """Return a remark about files that may have been meant as a dataset."""
    files = (path for path in (folder / "dataset").glob("*") if path.is_file())
    names = sorted(path.name for path in files if path.suffix not in _SUFFIXES)
    return f"; dataset/{names[0]} is not JSON Lines" if names else ""


def _packaged(folder: Path, given: str) -> Path:
    path = (folder / given).resolve()
    if path.is_relative_to(folder.resolve()) and path.is_file():
        return path
    raise TrainerError(
        Exit.DATA,
        Reason.DATASET_MISSING,
        f"params.dataset_path {given!r} is not a file of the environment's package",
        "give it relative to environment.py",
    )


def _examples(sdk: Any, params: Mapping[str, Any], data: Path | None) -> list[Any]:
    from freesolo.datasets.records import load_task_examples

    if data is not None:
        return list(load_task_examples(data))
    own = getattr(sdk, "dataset", None) or getattr(sdk, "examples", None) or ()
    return list(load_task_examples(params.get("records") or getattr(own, "examples", own)))


def _reading(data: Path | None, folder: Path) -> str:
    """Return what is being read, down to the first line of a dataset that is no example."""
    if data is None:
        return "reading its dataset"
    name = data.relative_to(folder) if data.is_relative_to(folder) else data.name
    lines = data.read_bytes().split(b"\n") if data.suffix == ".jsonl" else []
    bad = (number for number, line in enumerate(lines, 1) if line.strip() and not _is_example(line))
    return f"reading {name}, line {number}" if (number := next(bad, 0)) else f"reading {name}"


def _is_example(line: bytes) -> bool:
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        return False
    return isinstance(row, str) or (isinstance(row, dict) and row.get("input") is not None)


def row_name(example: Any) -> str:
    """Return how people count an example: from 1, in the order of the dataset."""
    _, _, index = str(getattr(example, "id", "")).rpartition("_")
    return f"row {int(index) + 1}" if index.isdigit() else "an example"


def checked(messages: Any) -> list[Message]:
    """Return chat messages as templates take them.

    Raises:
        ValueError: they are something else.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError(f"a list of messages is needed, not {shown(messages)}")
    return [_checked(message) for message in messages]


def _checked(message: Any) -> Message:
    if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
        raise ValueError(
            f"a message is an object with role ({', '.join(_ROLES)}) and content, "
            f"not {shown(message)}"
        )
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            raise ValueError("the content of a message has parts that are not text")
        content = "".join(str(part.get("text", "")) for part in content)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"the content of a message is text, not {shown(content)}")
    calls = [_with_arguments(call) for call in message.get("tool_calls") or ()]
    return {**message, "content": content or "", **({"tool_calls": calls} if calls else {})}


def _with_arguments(call: Any) -> Message:
    """Return a tool call with its arguments as an object; OpenAI's format has them as JSON."""
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    if not isinstance(function.get("name"), str):
        raise ValueError(f"a tool call needs the name of its function: {shown(call)}")
    arguments = function.get("arguments")
    parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(parsed, dict):
        raise ValueError(f"the arguments of a tool call are an object, not {shown(arguments)}")
    changed = {**function, "arguments": parsed}
    return {**call, "function": changed} if "function" in call else changed


def says_something(message: Message) -> bool:
    """Say whether a message of a completion is one that the assistant can learn from."""
    content = str(message.get("content") or "").strip()
    said = (content, message.get("tool_calls"), message.get("reasoning_content"))
    return message["role"] == "assistant" and any(said)


def reasons(message: Message) -> bool:
    """Say whether the assistant reasons in a message, and comes to an end with it."""
    _, _, inside = str(message.get("content") or "").partition("<think>")
    thought = "</think>" in inside or message.get("reasoning_content")
    return message["role"] == "assistant" and bool(thought)


def almost_messages(output: Any) -> bool:
    """Say whether an output seems to be a conversation, but is none to the SDK.

    It is learned as one text then, its JSON.
    """
    match output:
        case {"messages": list(), **others}:
            return bool(others)
        case [*turns] if turns and all(isinstance(turn, Mapping) for turn in turns):
            said = all("content" in turn or "value" in turn for turn in turns)
            return said and not all(isinstance(turn.get("role"), str) for turn in turns)
        case _:
            return False


def shown(value: Any) -> str:
    """Return a value as it is quoted in messages to people: shortened."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _with_contract(messages: list[Message], contract: str) -> list[Message]:
    text = contract.strip()
    if not text:
        return messages
    opening = next((message for message in messages if message.get("role") == "system"), None)
    if opening is None:
        return [{"role": "system", "content": text}, *messages]
    if not str(opening.get("content") or "").strip():
        opening["content"] = text
    return messages


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
