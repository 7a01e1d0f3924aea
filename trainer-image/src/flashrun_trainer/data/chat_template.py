"""Messages as text and as token ids, as the model's chat template renders them."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.data.messages import Message, short_repr
from flashrun_trainer.data.template_forms import template_form
from flashrun_trainer.data.tool_definitions import Tool
from flashrun_trainer.pod.trainer_errors import TrainerError, format_error

_CONTINUED_HERE: Final = "@continued-here@"
"""Marks the end of a turn that the model continues. Templates trim spaces, but not this."""


def tokenize_messages(
    tokenizer: Any,
    messages: Sequence[Message],
    thinking: bool,
    add_generation_prompt: bool,
    tools: Sequence[Tool] = (),
) -> list[int]:
    """Return messages as token ids; ``add_generation_prompt`` opens the assistant's turn.

    When the last message is the assistant's, its turn is left open instead.

    Raises:
        TrainerError: the template refuses the messages.
    """
    if add_generation_prompt:
        return encode(tokenizer, render_prompt(tokenizer, messages, thinking, tools))
    return encode(tokenizer, render(tokenizer, messages, thinking, False, tools))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return rendered text as token ids."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    thinking: bool,
    add_generation_prompt: bool,
    tools: Sequence[Tool] = (),
) -> str:
    """Return messages as the template writes them.

    Raises:
        TrainerError: the template refuses the messages, or they are not valid Unicode.
    """
    adapted = template_form(tokenizer).adapt(messages)
    try:
        text = str(
            tokenizer.apply_chat_template(
                adapted,
                tools=list(tools) or None,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                # Always passed: templates differ in their default.
                enable_thinking=thinking,
            )
        )
    except Exception as error:
        # A template is a program and may raise anything; the cause is always these messages.
        raise TrainerError(
            Exit.DATA,
            Reason.TEMPLATE_REFUSED,
            f"the model's chat template refuses messages that end with {short_repr(messages[-1])}: "
            f"{format_error(error)}",
            "change the messages that the environment builds",
        ) from error
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TrainerError(
            Exit.DATA,
            Reason.TEXT_INVALID,
            f"messages that end with {short_repr(messages[-1])} have half a character (a lone "
            "surrogate), which no tokenizer accepts",
            "write the text of the dataset as valid Unicode",
        ) from error
    return text


def render_prompt(
    tokenizer: Any, messages: Sequence[Message], thinking: bool, tools: Sequence[Tool] = ()
) -> str:
    """Return the messages of a prompt, with the assistant's next turn open.

    That is the last message's turn, if it is the assistant's.

    Raises:
        TrainerError: the template refuses the messages, or they are not valid Unicode.
    """
    if messages and messages[-1]["role"] == "assistant":
        return _render_open_turn(tokenizer, messages, thinking, tools)
    return render(tokenizer, messages, thinking, True, tools)


def _render_open_turn(
    tokenizer: Any, messages: Sequence[Message], thinking: bool, tools: Sequence[Tool]
) -> str:
    """Return messages whose last turn, the assistant's, ends with its content."""
    *before, last = messages
    content = str(last["content"])
    form = template_form(tokenizer).reasoning
    if form.is_opened_by(content, continues=True):
        # Templates write empty tags before content without a closed pair: open the turn as usual.
        opening = render_prompt(tokenizer, before, thinking, tools)
        is_opened = form.is_opened_by(opening)
        return opening + (content.partition(form.start)[2].lstrip() if is_opened else content)
    marked = {**last, "content": content + _CONTINUED_HERE}
    text = render(tokenizer, [*before, marked], thinking, False, tools)
    begin, is_written, _ = text.rpartition(_CONTINUED_HERE)
    if not is_written:
        raise TrainerError(
            Exit.DATA,
            Reason.TEMPLATE_REFUSED,
            "the model's chat template leaves out the assistant's turn with which the prompt ends: "
            f"{short_repr(last)}",
            "end the prompt with a message of the user or of a tool",
        )
    return begin


def common_length(left: Sequence[Any], right: Sequence[Any]) -> int:
    """Return the length of the common prefix of two token lists or two texts."""
    shorter = min(len(left), len(right))
    # Binary search: comparing slices is much faster than comparing items in Python.
    return bisect_left(range(1, shorter + 1), True, key=lambda n: left[:n] != right[:n])
