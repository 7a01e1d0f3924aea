"""The user's environment: loaded through the ``freesolo`` SDK, asked for prompts and outputs.

Any exception from the environment's own code ends the run with one sentence; the traceback goes to
the log.
"""

import hashlib
import json
import logging
import math
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedEnvironment
from flashrun.api.trainer_modules import TRAINER_MODULES
from flashrun_trainer.data import conversations, parameters
from flashrun_trainer.data.calls import CallRunner
from flashrun_trainer.data.conversations import Conversation
from flashrun_trainer.data.dataset import (
    dataset_path,
    describe_reading,
    example_name,
    load_examples,
    unread_file_remark,
)
from flashrun_trainer.data.message_reading import read_messages
from flashrun_trainer.data.messages import Message, short_repr
from flashrun_trainer.data.random_stream import RandomStream
from flashrun_trainer.data.shadowing import image_modules, refuse_shadowing
from flashrun_trainer.data.tool_definitions import Tool
from flashrun_trainer.data.unread_keys import unread_row_remark
from flashrun_trainer.data.verifiers_entry import verifiers_entry
from flashrun_trainer.pod.distributed import ProcessGroup
from flashrun_trainer.pod.trainer_errors import (
    InterruptedBeforeTraining,
    TrainerError,
    error_text,
    format_error,
)

if TYPE_CHECKING:  # it brings the client for storage, of which flash env test has no use
    from flashrun_trainer.pod.mounts import PodMounts

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_MODULE: Final = "environment.py"
_FACTORY: Final = "load_environment"
_CONTRACT: Final = "TRAINING_CONTRACT.md"
_NO_ANSWER: Final[Message] = {"role": "assistant", "content": ""}
_ONE_PROCESS: Final = ProcessGroup()
_TIMEOUT_SECONDS: Final = 600.0
"""The time limit of a call, where the environment does not set ``reward_timeout_seconds``."""
_PUSH_HINT: Final = "correct the environment and publish it again with flash env push"


@dataclass(frozen=True)
class Environment:
    """A loaded environment with its examples."""

    sdk: Any
    """The object that the environment's ``load_environment`` returned."""
    examples: Sequence[Any]
    contract: str
    """Text of the system prompt; empty for none."""
    code: str = ""
    """The text of the package's Python files."""
    process_group: ProcessGroup = _ONE_PROCESS
    """The processes that share ``max_score_concurrency``."""
    random: RandomStream = field(default_factory=RandomStream)
    """What the environment's code draws from while it is called."""

    def __post_init__(self) -> None:
        """Check the limits, and give the SDK, which has threads of its own, this rank's share."""
        _ = self.concurrency, self.timeout_seconds
        if self.concurrency != self.threads:
            self.sdk.max_score_concurrency = self.threads

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the examples, whether they come from a file or from code."""
        from freesolo.utils.core import json_safe_value

        sha256 = hashlib.sha256()
        for example in self.examples:
            # Examples from code may hold values that JSON lacks, such as dicts with tuples as keys.
            row = json_safe_value(
                [example.input, example.output, example.metadata, *_conversation_parts(example)]
            )
            # The order of keys counts: structured outputs are learned with it.
            sha256.update(json.dumps(row).encode() + b"\n")
        return sha256.hexdigest()

    @cached_property
    def row_remark(self) -> str:
        """A warning about keys of rows that nobody reads, or an empty string."""
        rows = ((example_name(example), example.record) for example in self.examples)
        return unread_row_remark(rows, self.code)

    @property
    def is_multi_turn(self) -> bool:
        """Whether an episode has more than one answer."""
        from freesolo.environments import EnvironmentMultiTurn

        return isinstance(self.sdk, EnvironmentMultiTurn)

    @cached_property
    def concurrency(self) -> int:
        """How many calls may run at once in the whole run."""
        return max(1, int(getattr(self.sdk, "max_score_concurrency", 1)))

    @cached_property
    def threads(self) -> int:
        """How many calls may run at once on this rank; 1 means the thread of the caller."""
        if not getattr(self.sdk, "reward_thread_safe", True):
            return 1
        whole, rest = divmod(self.concurrency, self.process_group.world_size)
        return max(1, whole + (self.process_group.rank < rest))

    @property
    def takes_turns(self) -> bool:
        """Whether fewer calls may run at once than there are ranks."""
        return self.concurrency < self.process_group.world_size

    @cached_property
    def timeout_seconds(self) -> float:
        """How long a call of a scoring method or a method of an episode may take."""
        given = getattr(self.sdk, "reward_timeout_seconds", _TIMEOUT_SECONDS)
        seconds = float(given)
        if not 0 < seconds < math.inf:
            raise ValueError(
                f"reward_timeout_seconds must be a number above 0, not {short_repr(given)}"
            )
        return seconds

    @property
    def _call_seconds(self) -> float:
        """How long the trainer waits for a call; longer for an environment with its own clock."""
        return float(getattr(self.sdk, "longest_call_seconds", self.timeout_seconds))

    @cached_property
    def _calls(self) -> CallRunner:
        return CallRunner(self.threads, self._call_seconds)

    @cached_property
    def _calls_here(self) -> CallRunner:
        return CallRunner(1, self._call_seconds)

    def prompt(self, example: Any) -> list[Message]:
        """Return the messages that open an episode, with the contract as system prompt.

        Raises:
            TrainerError: the environment fails, or does not return messages.
        """
        with environment_errors(f"building the prompt of {example_name(example)}"):
            return self._call_here(self.opening_messages, example)

    def opening_messages(self, example: Any) -> list[Message]:
        """Return the same as ``prompt``, but raise what the environment raises."""
        messages = read_messages(self._opening(example))
        return _with_contract(messages, self.contract)

    def _opening(self, example: Any) -> Any:
        """Return a whole conversation's own prompt, or else the environment's opening."""
        if self.is_multi_turn or not conversations.is_whole_conversation(example.record):
            return self.sdk.start_episode(example, self.contract)
        prompt = conversations.row_prompt(example.record)
        if not prompt:
            raise ValueError(
                "the conversation begins with the assistant, so that nothing asks for its first "
                "message: put a message of the system or the user before it"
            )
        return prompt

    def tools(self, example: Any) -> tuple[Tool, ...]:
        """Return the tools that an example defines, for the model's chat template.

        Raises:
            TrainerError: they cannot be read.
        """
        doing = f"reading the tools of {example_name(example)}"
        with environment_errors(doing, Exit.DATA, Reason.DATASET_INVALID):
            return conversations.row_tools(example.record, example.output)

    def conversation(self, example: Any) -> Conversation:
        """Return an example as SFT learns it.

        Raises:
            TrainerError: the environment fails, mostly because the row's output is malformed.
        """
        return conversations.join(
            self.prompt(example),
            self.completion(example),
            example_name(example),
            self.tools(example),
        )

    def completion(self, example: Any) -> list[Message]:
        """Return the messages that SFT imitates.

        Raises:
            TrainerError: the environment fails, mostly because the row's output is malformed.
        """
        doing = f"reading the output of {example_name(example)}"
        with environment_errors(doing, Exit.DATA, Reason.DATASET_INVALID):
            if self._has_own_completion:
                completion = self._call_here(self.sdk.sft_completion, example)
                return read_messages(completion)
            if conversations.is_whole_conversation(example.record):
                return conversations.row_completion(example.record) or [_NO_ANSWER]
            return conversations.read_output(example.output)

    @property
    def _has_own_completion(self) -> bool:
        """Whether the environment builds completions itself.

        The SDK's method, which it would replace, sorts the keys of structured outputs, and
        refuses conversations that we read.
        """
        from freesolo.environments import Environment as Base

        return type(self.sdk).sft_completion is not Base.sft_completion

    def max_turns(self, example: Any) -> int:
        """Return how many answers an episode has at most; raises what the environment raises."""
        turns = int(self.sdk.max_episode_turns(example))
        if turns < 1:
            raise ValueError(f"max_episode_turns returned {turns}, and must return 1 or more")
        return turns

    @property
    def own_splits(self) -> tuple[str, ...] | None:
        """The splits that the environment makes itself; None when its splits are files."""
        splits: tuple[str, ...] | None = getattr(self.sdk, "own_splits", None)
        return splits

    @property
    def reads_calls(self) -> bool:
        """Whether the environment needs to know more of an answer than its text."""
        return hasattr(self.sdk, "begin_episode")

    @property
    def has_tools(self) -> bool:
        """Whether the environment answers calls of tools, which must be read in the answers."""
        return bool(getattr(self.sdk, "has_tools", False))

    def begin_episode(self, example: Any) -> Any:
        """Return an example for one episode; environments of our SDK share it."""
        begin = getattr(self.sdk, "begin_episode", None)
        return example if begin is None else begin(example)

    @property
    def left_behind(self) -> int:
        """How many threads still run calls that did not return in time."""
        return self._calls.left_behind

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> list[Result | BaseException]:
        """Call ``function`` on every item, on as many threads as allowed; keep the order.

        Returns what each call has returned or raised; a ``CallTimeoutError`` for one that did not
        return within ``reward_timeout_seconds``. All ranks call this together where the
        environment ``takes_turns``.
        """
        if not self.takes_turns:
            return self._map(function, items)
        results: list[Result | BaseException] = []
        for first in range(0, self.process_group.world_size, self.concurrency):
            if first <= self.process_group.rank < first + self.concurrency:
                results = self._map(function, items)
            self.process_group.barrier()
        return results

    def _map(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> list[Result | BaseException]:
        with self.random.in_use():
            return self._calls.map(function, items)

    def _call_here(self, function: Callable[[Item], Result], item: Item) -> Result:
        [result] = self._calls_here.map(function, [item])
        if isinstance(result, BaseException):
            raise result
        return result


def load(
    pod: "PodMounts", spec: ResolvedEnvironment, process_group: ProcessGroup = _ONE_PROCESS
) -> Environment:
    """Import the environment and read its examples.

    Raises:
        TrainerError: its code fails, or the split is missing or empty.
    """
    modules = image_modules()
    # The image's packages come first: a run cannot replace what the trainer was tested with.
    sys.path.append(str(pod.site))
    return load_folder(pod.environment, spec, modules, process_group, pod.own_python)


def load_folder(
    folder: Path,
    spec: ResolvedEnvironment,
    modules: Collection[str] = TRAINER_MODULES,
    process_group: ProcessGroup = _ONE_PROCESS,
    python: Path | None = None,
) -> Environment:
    """Import the environment in ``folder`` and read its examples; raises ``TrainerError``.

    ``modules`` are the names that its own modules must not have. ``python`` is the interpreter for
    an environment of ``verifiers``, by default the one of this process.
    """
    from freesolo.environments import load_environment

    module = folder / _MODULE
    if (entry := verifiers_entry(folder)) is not None:
        from flashrun_trainer.data import verifiers_environment

        foreign = verifiers_environment.load(folder, entry, spec, python or Path(sys.executable))
        return _with_examples(folder, spec, foreign, "", None, process_group)
    if not module.is_file():
        raise TrainerError(
            Exit.ENVIRONMENT,
            Reason.ENVIRONMENT_INVALID,
            f"the package of {spec.id} has no {_MODULE} at its root",
            _PUSH_HINT,
        )
    refuse_shadowing(folder, modules)
    contract_path = folder / _CONTRACT
    with environment_errors(f"reading {_CONTRACT}"):
        contract = str(spec.params.get("contract_text") or _read_text(contract_path))
    data = dataset_path(folder, spec)
    extras: dict[str, Any] = {"dataset_path": str(data)} if data else {}
    extras |= {"contract_path": str(contract_path)} if contract_path.is_file() else {}
    with environment_errors(lambda error: _describe_loading(error, module)):
        sdk = load_environment(f"{module}:{_FACTORY}", **{**extras, **spec.params})
    parameters.refuse_unknown(spec.params, parameters.arguments_of(module, _FACTORY))
    environment = _with_examples(folder, spec, sdk, contract, data, process_group)
    refuse_shadowing(folder, modules)  # its code may have put more folders on Python's path
    return environment


def _with_examples(
    folder: Path,
    spec: ResolvedEnvironment,
    sdk: Any,
    contract: str,
    data: Path | None,
    process_group: ProcessGroup,
) -> Environment:
    """Return a loaded environment with its examples, from ``data`` or its own code."""
    with environment_errors(describe_reading(data, folder), Exit.DATA, Reason.DATASET_INVALID):
        examples = load_examples(sdk, spec.params, data)
    if not examples:
        raise TrainerError(
            Exit.DATA,
            Reason.DATASET_EMPTY,
            f"split {spec.split!r} of {spec.id} has no examples{unread_file_remark(folder)}",
            "add rows with an input, and for SFT an output, to the dataset",
        )
    with environment_errors("reading max_score_concurrency and reward_timeout_seconds"):
        code = "".join(path.read_text("utf-8", "replace") for path in folder.rglob("*.py"))
        environment = Environment(sdk, examples, contract, code, process_group)
        log.info(
            "up to %d calls at once on this process, of %d in the run, each of up to %g s",
            *(environment.threads, environment.concurrency, environment.timeout_seconds),
        )
    # Compute the digest now, because the environment's code may change its examples later.
    log.info(
        "environment %s: %d examples of split %s, SHA-256 %s",
        *(spec.id, len(examples), spec.split, environment.digest),
    )
    return environment


def _describe_loading(error: BaseException, module: Path) -> str:
    """Return what the environment did when it raised: its import, or the call of its factory."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame.name for frame in frames if Path(frame.filename) == module.resolve()]
    if inside:
        called = inside[0] != "<module>"
    else:  # the SDK raised, because of the arguments or of what was returned
        called = parameters.imported_function(module, _FACTORY) is not None
    return f"calling {_FACTORY}" if called else f"importing {_MODULE}"


@contextmanager
def environment_errors(
    doing: str | Callable[[BaseException], str],
    code: Exit = Exit.ENVIRONMENT,
    reason: Reason = Reason.ENVIRONMENT_FAILED,
) -> Iterator[None]:
    """Turn what the environment raises into a ``TrainerError`` that says what it was ``doing``."""
    try:
        yield
    except (TrainerError, InterruptedBeforeTraining):
        raise
    except BaseException as error:
        traceback.print_exc()
        what = doing if isinstance(doing, str) else doing(error)
        raise TrainerError(
            code,
            reason,
            f"the environment failed while {what}: {format_error(error)}",
            _hint_for(error),
        ) from error


@contextmanager
def naming_example(name: str) -> Iterator[None]:
    """Put the name of the example before the message of a ``TrainerError``."""
    try:
        yield
    except TrainerError as error:
        message = f"{name}: {error.message}"
        raise TrainerError(error.code, error.reason, message, error.hint) from error.__cause__


def _hint_for(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"add the package that provides {error.name} to [environment].pip"
    text = error_text(error)
    if isinstance(error, KeyError) and text.strip("'").isupper():
        return f"if {text} is a secret, add it to [environment].secrets"
    if isinstance(error, KeyError):
        return f"if {text} is a parameter, set it in [environment.params]; or {_PUSH_HINT}"
    if isinstance(error, TypeError) and f"{_FACTORY}() missing" in text:
        return "set it in [environment.params]"
    return _PUSH_HINT


def _conversation_parts(example: Any) -> list[Any]:
    """Return the parts of a row that are learned beside its input and output."""
    record = example.record if isinstance(example.record, dict) else {}
    keys = ("tools", "functions", "messages")
    return [record[key] for key in keys if record.get(key) is not None]


def _with_contract(messages: list[Message], contract: str) -> list[Message]:
    """Return the messages with ``contract`` as system prompt, unless they have one already."""
    text = contract.strip()
    if not text:
        return messages
    system = next((message for message in messages if message.get("role") == "system"), None)
    if system is None:
        return [{"role": "system", "content": text}, *messages]
    if not str(system.get("content") or "").strip():
        system["content"] = text
    return messages


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
