"""Prompts as the model is asked them, and its answers as scorers see them."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from flashrun.api.records import ResolvedRun
from flashrun_trainer.data import stopping
from flashrun_trainer.data.chat_template import tokenize_messages
from flashrun_trainer.data.dataset import example_name
from flashrun_trainer.data.environment import Environment, naming_example
from flashrun_trainer.data.messages import Answer, Message
from flashrun_trainer.data.openings import Openings
from flashrun_trainer.data.template_forms import template_form
from flashrun_trainer.data.tool_definitions import Tool


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
    openings = Openings(len(examples))
    prompts: dict[int, Prompt] = {}
    for number, example in enumerate(examples):
        opening = partial(make_prompt, environment, tokenizer, example, thinking)
        if (prompt := openings.open(number, opening)) is not None:
            prompts[number] = prompt
    failures = {number: error.message for number, error in openings.failures.items()}
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
