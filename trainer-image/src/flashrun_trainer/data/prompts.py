"""Prompts as the model is asked them, and its answers as scorers see them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from flashrun.api.records import ResolvedRun
from flashrun_trainer.data import stopping
from flashrun_trainer.data.chat_template import tokenize_messages
from flashrun_trainer.data.dataset import example_name
from flashrun_trainer.data.environment import Environment, naming_example
from flashrun_trainer.data.messages import Answer, Message
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


def parse_answer(
    tokenizer: Any, run: ResolvedRun, ids: Sequence[int], opens_reasoning: bool
) -> Answer:
    """Return sampled token ids as an answer, up to the first stop sequence."""
    form = template_form(tokenizer).reasoning
    text = stopping.text_until_stop(tokenizer, ids, run.train.stop_sequences or (), form)
    return Answer(text, run.thinking, opens_reasoning, form)
