"""Episodes of several turns: the model answers, the environment replies, until one of them ends it.

The token ids of an episode are kept as they were sampled, and the tokens of the environment's
replies are appended to them. Training therefore sees exactly what the model saw. Only the tokens
that the model has sampled are learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.data.chat_template import encode
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.data.message_reading import read_messages
from flashrun_trainer.data.messages import Answer, Message
from flashrun_trainer.data.rewards import FailureKind, failed_score
from flashrun_trainer.data.tool_calls import check_calls_readable
from flashrun_trainer.data.turn_ends import (
    added_tokens,
    end_of_turn_token,
    text_after_answer,
    turn_ends,
)
from flashrun_trainer.pod.trainer_errors import TrainerError


@dataclass
class Episode:
    """One episode while it is played."""

    example: Any
    messages: list[Message]
    prompt_ids: list[int]
    turns_left: int
    completion_ids: list[int] = field(default_factory=list)
    """The model's and the environment's tokens, in order."""
    mask: list[int] = field(default_factory=list)
    """1 for the model's tokens, 0 for the environment's; as long as ``completion_ids``."""
    thoughts: list[str] = field(default_factory=list)
    """The first reasoning of every turn."""
    last_ids: list[int] = field(default_factory=list)
    """The last token of every turn of the model."""
    response: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    """Why the episode has failed: it ends with the current turn."""
    done: bool = False

    def __post_init__(self) -> None:
        self.opening_length = len(self.messages)
        """Number of messages that the episode began with."""
        self.failed_at_start = self.error is not None
        """Whether the episode could not start; it is played for one turn."""

    @property
    def ids(self) -> list[int]:
        """All token ids so far: the input for the next turn."""
        return self.prompt_ids + self.completion_ids

    def add_answer(self, ids: Sequence[int], answer: Answer) -> None:
        """Add the model's turn."""
        self._append(ids, 1)
        self.last_ids += ids[-1:]
        self.messages.append({"role": "assistant", "content": str(answer)})
        self.thoughts.append(answer.first_thought)
        self.turns_left -= 1
        self.response = answer
        self.done = self.done or self.error is not None

    def add_step(self, step: Any) -> list[Message]:
        """Add what ``step_episode`` has returned or raised for the newest answer.

        Returns the environment's reply; it is empty when the episode ends.
        """
        if isinstance(step, BaseException):
            self.fail(step)
            return []
        try:
            replies = read_messages(step.messages) if step.messages else []
            if self._repeats_answer(replies):
                raise ValueError(
                    "step_episode returned the conversation up to the model's answer again: return "
                    "only the messages after it"
                )
            self.metadata |= step.metadata
            if step.final_response_text is not None:
                self.response = step.final_response_text
            done = bool(step.done)
        except BaseException as error:
            self.fail(error)
            return []
        self.messages += replies
        self.done = done or self.turns_left <= 0 or not replies
        return [] if self.done else replies

    def _repeats_answer(self, replies: Sequence[Message]) -> bool:
        answer = self.messages[-1]
        return any(
            (reply["role"], reply["content"]) == (answer["role"], answer["content"])
            for reply in replies
        )

    def fail(self, error: BaseException) -> None:
        """End the episode with an error of the environment: it is not scored, and not learned."""
        self.error, self.done = error, True

    def add_reply(
        self, tokenizer: Any, replies: list[Message], thinking: bool, longest: int
    ) -> None:
        """Append the tokens of the environment's reply to the newest answer.

        The episode ends when it would be longer than ``longest`` tokens, and no answer would fit.
        It fails when the template refuses the reply.
        """
        try:
            reply_ids = tokenize_reply(tokenizer, replies, thinking, self.last_ids[-1])
        except TrainerError as error:
            self.fail(error)
            return
        if len(self.ids) + len(reply_ids) > longest:
            self.done = True
        else:
            self.add_reply_tokens(reply_ids)

    def add_reply_tokens(self, ids: Sequence[int]) -> None:
        """Append the tokens of the environment's reply, which are not learned."""
        self._append(ids, 0)

    def _append(self, ids: Sequence[int], is_sampled: int) -> None:
        self.completion_ids += ids
        self.mask += [is_sampled] * len(ids)

    def to_response(self) -> Any:
        """Return the episode in the form that the SDK scores, or a failed ``Score``."""
        from freesolo.environments import EnvironmentEpisode, EnvironmentTurn

        if self.error is not None:
            failed = failed_score(self.error, FailureKind.EPISODE)
            return replace(failed, error=f"{self._place()}: {failed.error}")
        turns = (
            EnvironmentTurn(role=message["role"], content=message.get("content") or "")
            for message in self.messages
        )
        return EnvironmentEpisode(
            messages=tuple(self.messages),
            response_text=self.response,
            turns=tuple(turns),
            metadata=self.metadata,
        )

    def _place(self) -> str:
        """Return in which part of the episode it has failed."""
        return "at the start" if self.failed_at_start else f"in turn {len(self.last_ids)}"


def play_turns(
    environment: Environment, turns: Sequence[tuple[Episode, Sequence[int], Answer]]
) -> list[list[Message]]:
    """Add an answer to every episode, and return the environment's replies to them.

    Replies may be slow, so they are asked for on as many threads as the environment allows. An
    episode changes only here: a call that did not return in time may still run later.
    """
    for episode, ids, answer in turns:
        episode.add_answer(ids, answer)
    to_step = [(episode, answer) for episode, _, answer in turns if not episode.done]

    def step(turn: tuple[Episode, Answer]) -> Any:
        episode, answer = turn
        messages = [dict(message) for message in episode.messages]
        return environment.sdk.step_episode(episode.example, messages, answer)

    replies = {
        id(episode): episode.add_step(result)
        for (episode, _), result in zip(to_step, environment.map(step, to_step), strict=True)
    }
    return [replies.get(id(episode), []) for episode, *_ in turns]


def start_episodes(
    environment: Environment, examples: Sequence[Any]
) -> list[tuple[list[Message], int] | BaseException]:
    """Return the opening messages and the number of turns of an episode of every example.

    An exception stands in the place of an episode that cannot start.
    """

    def start(example: Any) -> tuple[list[Message], int]:
        return environment.opening_messages(example), environment.max_turns(example)

    return environment.map(start, examples)


def check_template(environment: Environment, tokenizer: Any, thinking: bool) -> None:
    """Check that the model's template can be used for episodes; raises ``TrainerError``."""
    if environment.has_tools:
        check_calls_readable(tokenizer)
    last_id = end_of_turn_token(tokenizer, thinking)
    tokenize_reply(tokenizer, [{"role": "user", "content": "?"}], thinking, last_id)


def tokenize_reply(
    tokenizer: Any, replies: list[Message], thinking: bool, last_id: int
) -> list[int]:
    """Return the tokens between the end of an answer and the beginning of the next one.

    ``last_id`` is the last token of the answer. If it does not end the turn, because the answer was
    cut off, what ends a turn comes first.

    Raises:
        TrainerError: the model's template does not end turns with a token.
    """
    ends, added = turn_ends(tokenizer, thinking), added_tokens(tokenizer)
    # Render a short conversation with these replies, and take what follows its answer.
    after = text_after_answer(tokenizer, replies, thinking)
    if not added.match(after.lstrip()):
        raise TrainerError(
            Exit.CONFIG,
            Reason.TEMPLATE_UNSUPPORTED,
            "the model's chat template does not end turns with a token of its own, which "
            "environments of several turns need",
            "set the key model to another model",
        )
    ids = encode(tokenizer, after)
    if last_id == end_of_turn_token(tokenizer, thinking):
        ids = ids[len(encode(tokenizer, ends.history_end)) :]
    # In some templates the token that opens the reply is the one that ends the answer.
    return ids[1:] if ids[:1] == [last_id] else ids
