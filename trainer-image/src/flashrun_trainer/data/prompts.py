"""Prompts as the model is asked them, and its answers as scorers see them."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedRun
from flashrun_trainer.data import stopping
from flashrun_trainer.data.calls import CallTimeoutError
from flashrun_trainer.data.chat_template import tokenize_messages
from flashrun_trainer.data.dataset import example_name
from flashrun_trainer.data.environment import Environment, naming_example
from flashrun_trainer.data.messages import Answer, Message
from flashrun_trainer.data.random_stream import generator_states, set_generator_states
from flashrun_trainer.data.template_forms import template_form
from flashrun_trainer.data.tool_definitions import Tool
from flashrun_trainer.pod.trainer_errors import TrainerError

log = logging.getLogger(__name__)

_PAUSES_SECONDS: Final = (2.0, 4.0, 8.0)
"""The pauses before openings are tried again, of all rows together."""
_OF_ONE_EPISODE: Final = (
    Reason.ENVIRONMENT_FAILED,
    Reason.TEMPLATE_REFUSED,
    Reason.TEXT_INVALID,
)
"""Why one episode cannot be opened while others can."""


class Prompt(NamedTuple):
    """One example, ready to be answered."""

    example: Any
    messages: list[Message]
    ids: list[int]
    opens_reasoning: bool
    """Whether the prompt ends with open reasoning."""
    tools: tuple[Tool, ...] = ()
    """The tools that the template describes to the model."""


def make_prompt(environment: Environment, tokenizer: Any, example: Any, thinking: bool) -> Prompt:
    """Return an example as the model is asked it.

    Raises:
        TrainerError: the environment fails, or the template refuses its messages.
    """
    messages = environment.prompt(example)
    with naming_example(example_name(example)):
        tools = environment.tools(example)
        ids = tokenize_messages(tokenizer, messages, thinking, True, tools)
    opens_reasoning = template_form(tokenizer).reasoning.is_opened_by(
        tokenizer.decode(ids), continues=messages[-1]["role"] == "assistant"
    )
    return Prompt(example, messages, ids, opens_reasoning, tools)


class EpisodePrompts(NamedTuple):
    """The prompts of an environment of several turns."""

    prompts: list[Prompt]
    remark: str
    """A warning about the rows whose episodes could not be opened, or an empty string."""


def make_episode_prompts(
    environment: Environment, tokenizer: Any, examples: Sequence[Any], thinking: bool
) -> EpisodePrompts:
    """Return a prompt for each example; one whose episode cannot be opened has its input alone.

    An opening that fails is tried again after a pause. What fails then may work later, so the row
    keeps its place: each of its episodes is opened anew, and those that fail are not learned. All
    ranks return the same prompts.

    Raises:
        TrainerError: more than a tenth of the episodes cannot be opened, or two of them hang.
    """
    pauses, hanging = iter(_PAUSES_SECONDS), 0
    prompts: dict[int, Prompt] = {}
    failures: dict[int, str] = {}
    for number, example in enumerate(examples):
        try:
            prompts[number] = _open_patiently(environment, tokenizer, example, thinking, pauses)
        except TrainerError as error:
            failures[number] = error.message
            hanging += isinstance(error.__cause__, CallTimeoutError)
            too_many = len(failures) > max(1, len(examples) // 10) or len(failures) == len(examples)
            if error.reason not in _OF_ONE_EPISODE or too_many or hanging > 1:
                raise
    for of_rank in environment.process_group.all_gather(failures):
        failures |= of_rank
    for number in failures:
        prompts[number] = _prompt_of_input(environment, tokenizer, examples[number], thinking)
    return EpisodePrompts(
        [prompts[number] for number in range(len(examples))],
        f"{len(failures)} of {len(examples)} rows have an episode that could not be opened before "
        f"training: {failures[min(failures)]}"
        if failures
        else "",
    )


def _open_patiently(
    environment: Environment, tokenizer: Any, example: Any, thinking: bool, pauses: Iterator[float]
) -> Prompt:
    """Return the prompt of an episode; a failure is tried again while there are ``pauses``."""
    states = generator_states()
    while True:
        try:
            return make_prompt(environment, tokenizer, example, thinking)
        except TrainerError as error:
            is_hanging = isinstance(error.__cause__, CallTimeoutError)
            if error.reason not in _OF_ONE_EPISODE or is_hanging:
                raise
            if (pause := next(pauses, None)) is None:
                raise
            log.warning("%s; it is tried again in %g s", error.message, pause)
        time.sleep(pause)
        set_generator_states(states)  # all ranks draw alike, also where only one has failed


def _prompt_of_input(
    environment: Environment, tokenizer: Any, example: Any, thinking: bool
) -> Prompt:
    """Return a prompt that stands in the place of one that the environment could not open."""
    messages: list[Message] = [{"role": "user", "content": str(example.input) or "?"}]
    with naming_example(example_name(example)):
        ids = tokenize_messages(tokenizer, messages, thinking, True)
    opens_reasoning = template_form(tokenizer).reasoning.is_opened_by(tokenizer.decode(ids))
    return Prompt(example, messages, ids, opens_reasoning, environment.tools(example))


def parse_answer(
    tokenizer: Any, run: ResolvedRun, ids: Sequence[int], opens_reasoning: bool
) -> Answer:
    """Return sampled token ids as an answer, up to the first stop sequence."""
    form = template_form(tokenizer).reasoning
    text = stopping.text_until_stop(tokenizer, ids, run.train.stop_sequences or (), form)
    return Answer(text, run.thinking, opens_reasoning, form)
