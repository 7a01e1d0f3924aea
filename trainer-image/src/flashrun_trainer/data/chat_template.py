"""Messages as token ids, as the model's chat template renders them, and which tokens are learned.

Only what the assistant says in a completion is learned. The prompt, and the messages of users and
tools, are context.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.data.conversations import Tool
from flashrun_trainer.data.messages import Message, is_learned, short_repr
from flashrun_trainer.data.packing import IGNORE_INDEX
from flashrun_trainer.pod.trainer_errors import TrainerError, format_error

_CONTINUED_HERE: Final = "@continued-here@"
"""Marks the end of a turn that the model continues. Templates trim spaces, but not this."""


class TokenizedExample(NamedTuple):
    """One SFT example as token ids."""

    input_ids: list[int]
    labels: list[int]
    """The token ids to learn; ``IGNORE_INDEX`` for the others. As long as ``input_ids``."""
    cut: bool = False
    """Whether tokens that should be learned did not fit."""


def tokenize_conversation(
    tokenizer: Any,
    prompt: list[Message],
    completion: list[Message],
    thinking: bool,
    tools: Sequence[Tool] = (),
) -> TokenizedExample:
    """Return the whole conversation as token ids, with the assistant's turns as labels.

    A prompt that ends with a turn of the assistant is continued: the first turn of the completion
    is the rest of that turn. Turns of weight 0 are context.

    A turn begins after the generation prompt, so what that contains, such as an empty pair of think
    tags, is not learned. A turn ends with its end-of-turn token, which ends generation; what the
    template writes after it is not learned either.

    Raises:
        TrainerError: the template refuses the messages.
    """
    end_token = end_of_turn_token(tokenizer, thinking)
    with_opening = tokenize_messages(tokenizer, prompt, thinking, True, tools)
    beginning = str(prompt[-1]["content"])
    continues = prompt[-1]["role"] == completion[0]["role"] == "assistant"
    if continues:
        prompt, completion = (
            prompt[:-1],
            [_continue_turn(prompt[-1], completion[0]), *completion[1:]],
        )
    messages = [*prompt, *completion]
    if len(completion) == 1:
        ids = tokenize_messages(tokenizer, messages, thinking, False, tools)
        turns = [(common_length(with_opening, ids), _last_turn_end(ids, end_token))]
    else:
        opened = tokenize_messages(tokenizer, prompt, thinking, True, tools)
        without = tokenize_messages(tokenizer, prompt, thinking, False, tools)
        opening = opened[common_length(without, opened) :]
        locator = _TurnLocator(tokenizer, messages, thinking, opening, tools)
        ids = locator.ids
        turns = [
            locator.locate(index, end_token)
            for index in range(len(prompt), len(messages))
            if is_learned(messages[index])
        ]
        if continues and is_learned(completion[0]):
            turns[0] = (locator.content_begin(len(prompt), beginning), turns[0][1])
    labels = [IGNORE_INDEX] * len(ids)
    for begin, end in turns:
        labels[begin:end] = ids[begin:end]
    return TokenizedExample(ids, labels)


def _continue_turn(beginning: Message, rest: Message) -> Message:
    """Return the turn of the assistant that ``beginning`` opens and ``rest`` completes."""
    return {**beginning, **rest, "content": f"{beginning['content']}{rest['content']}"}


class _TurnLocator:
    """Finds the assistant's turns among the tokens of a conversation with several of them.

    A template may render a turn differently when other turns follow it, and then also the turns
    before it, so rendering the conversation up to the turn does not give its position. But text
    before and after a turn does not change when the turn has another content. So each turn is
    replaced by a marker, and the two texts are compared. They are compared as text, because
    tokenizing the conversation once per turn would take seconds.
    """

    def __init__(
        self,
        tokenizer: Any,
        messages: list[Message],
        thinking: bool,
        opening: list[int],
        tools: Sequence[Tool],
    ) -> None:
        self._tokenizer, self._messages, self._thinking = tokenizer, messages, thinking
        self._tools = tools
        self._opening = opening
        """The generation prompt: the tokens that open an assistant's turn."""
        self._text = render(tokenizer, messages, thinking, False, tools)
        encoded = tokenizer(self._text, add_special_tokens=False, return_offsets_mapping=True)
        self.ids: list[int] = encoded["input_ids"]
        self._starts, self._ends = zip(*encoded["offset_mapping"], strict=True)

    def locate(self, index: int, end_token: int) -> tuple[int, int]:
        """Return the token positions (begin, end) of turn ``index``, with its end-of-turn token."""
        content_start, content_end = self._content_span(index)
        first = bisect_right(self._ends, content_start)
        opening = self._opening
        # The content starts in the turn: search backwards for the tokens that open the turn.
        backwards = range(first - 1, -1, -1)
        opened = next((at for at in backwards if self.ids[at : at + 1] == opening[:1]), first)
        begin = opened + common_length(opening, self.ids[opened : opened + len(opening)])
        if index + 1 == len(self._messages):
            return begin, _last_turn_end(self.ids, end_token)
        end = bisect_left(self._starts, content_end)
        return begin, end + 1 if self.ids[end : end + 1] == [end_token] else end

    def content_begin(self, index: int, beginning: str) -> int:
        """Return the token position in turn ``index`` after the ``beginning`` of its content."""
        content_start, _ = self._content_span(index)
        return bisect_right(self._ends, content_start + len(beginning.lstrip()))

    def _content_span(self, index: int) -> tuple[int, int]:
        """Return the positions in the text (begin, end) of the turn's content."""
        messages, text = self._messages, self._text
        content = str(messages[index].get("content") or "").strip()
        # A marker that the content neither begins nor ends with, so that the texts differ there.
        marker = next(m for m in "#%@" if not content.startswith(m) and not content.endswith(m))
        changed: Message = {"role": "assistant", "content": marker}
        variant = render(
            self._tokenizer,
            [*messages[:index], changed, *messages[index + 1 :]],
            self._thinking,
            add_generation_prompt=False,
            tools=self._tools,
        )
        before = common_length(text, variant)
        return before, len(text) - common_length(text[::-1], variant[::-1])


def end_of_turn_token(tokenizer: Any, thinking: bool) -> int:
    """Return the id of the token with which the template ends an assistant's turn.

    It may differ from the end-of-sequence token: some models end generation at several tokens.
    """
    return _find_end_of_turn_token(tokenizer, str(tokenizer.chat_template), thinking)


@lru_cache(maxsize=8)
def _find_end_of_turn_token(tokenizer: Any, template: str, thinking: bool) -> int:
    """Render a short conversation and return the token after its answer.

    ``template`` is a key of the cache: a tokenizer's template may be replaced.
    """
    probe: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    ids = tokenize_messages(tokenizer, probe, thinking, add_generation_prompt=False)
    answers = (at for at, token in enumerate(ids) if "!" in tokenizer.decode([token]))
    answer = max(answers, default=-1)
    end: int = next(iter(ids[answer + 1 :]), tokenizer.eos_token_id)
    return end if end in tokenizer.added_tokens_decoder else int(tokenizer.eos_token_id)


def _last_turn_end(ids: list[int], end_token: int) -> int:
    """Return the position after the last end-of-turn token."""
    return len(ids) - next((i for i, token in enumerate(ids[::-1]) if token == end_token), 0)


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
    text = render(tokenizer, messages, thinking, add_generation_prompt, tools)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    thinking: bool,
    add_generation_prompt: bool,
    tools: Sequence[Tool] = (),
) -> str:
    """Return messages as the template writes them, as ``tokenize_messages`` does.

    Raises:
        TrainerError: the template refuses the messages, or they are not valid Unicode.
    """
    if add_generation_prompt and messages and messages[-1]["role"] == "assistant":
        return _render_open_turn(tokenizer, messages, thinking, tools)
    try:
        text = str(
            tokenizer.apply_chat_template(
                list(messages),
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


def _render_open_turn(
    tokenizer: Any, messages: Sequence[Message], thinking: bool, tools: Sequence[Tool]
) -> str:
    """Return messages whose last turn, the assistant's, ends with its content."""
    *before, last = messages
    content = str(last["content"])
    if "<think>" in content and "</think>" not in content:
        # Templates write empty tags before content without a closed pair: open the turn as usual.
        opening = render(tokenizer, before, thinking, True, tools)
        is_opened = opening.rstrip().endswith("<think>")
        return opening + (content.partition("<think>")[2].lstrip() if is_opened else content)
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


def truncate(example: TokenizedExample, length: int) -> TokenizedExample:
    """Return the first ``length`` tokens; ``cut`` is set when tokens to learn are lost."""
    cut = any(label != IGNORE_INDEX for label in example.labels[length:])
    return TokenizedExample(example.input_ids[:length], example.labels[:length], cut)
