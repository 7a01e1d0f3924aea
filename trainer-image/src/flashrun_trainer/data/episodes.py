"""Episodes of several turns: the model answers, the environment replies, until one of them ends it.

The token ids of an episode are kept as they were sampled, and the tokens of the environment's
replies are appended to them. Training therefore sees exactly what the model saw. Only the tokens
that the model has sampled are learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.data.chat_template import end_of_turn_token, tokenize_messages
from flashrun_trainer.data.conversations import read_messages
from flashrun_trainer.data.environment import ENVIRONMENT_ERRORS, Environment
from flashrun_trainer.data.messages import Answer, Message
from flashrun_trainer.data.rewards import FailureKind, failed_score
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
    """What the environment has raised; the episode ends with the current turn."""
    done: bool = False

    def __post_init__(self) -> None:
        self.opening_length = len(self.messages)
        """Number of messages that the episode began with."""

    @property
    def ids(self) -> list[int]:
        """All token ids so far: the input for the next turn."""
        return self.prompt_ids + self.completion_ids

    def add_answer(
        self, environment: Environment, ids: Sequence[int], answer: Answer
    ) -> list[Message]:
        """Add the model's turn, and return the environment's reply; empty when the episode ends."""
        self._append(ids, 1)
        self.last_ids += ids[-1:]
        self.messages.append({"role": "assistant", "content": str(answer)})
        self.thoughts.append(answer.first_thought)
        self.turns_left -= 1
        self.response = answer
        if self.error is not None:
            self.done = True
            return []
        try:
            step = environment.sdk.step_episode(self.example, list(self.messages), answer)
            replies = read_messages(step.messages) if step.messages else []
            self.metadata |= step.metadata
            if step.final_response_text is not None:
                self.response = step.final_response_text
            done = bool(step.done)
        except ENVIRONMENT_ERRORS as error:
            self.error, self.done = error, True
            return []
        self.messages += replies
        self.done = done or self.turns_left <= 0 or not replies
        return [] if self.done else replies

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
            return failed_score(self.error, FailureKind.EPISODE)
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


def tokenize_reply(
    tokenizer: Any, replies: list[Message], thinking: bool, turn_is_closed: bool
) -> list[int]:
    """Return the tokens between the end of an answer and the beginning of the next one.

    ``turn_is_closed`` is True when the answer ended with the end-of-turn token; otherwise the
    answer was cut off, and that token comes first.

    Raises:
        TrainerError: the model's template does not end turns with a token.
    """
    question: Message = {"role": "user", "content": "?"}
    answer: Message = {"role": "assistant", "content": "!"}
    end_token = end_of_turn_token(tokenizer, thinking)
    # Render a short conversation with these replies, and take what follows its answer.
    ids = tokenize_messages(tokenizer, [question], thinking, add_generation_prompt=False)
    ends_before = ids.count(end_token)
    messages = [question, answer, *replies]
    ids = tokenize_messages(tokenizer, messages, thinking, add_generation_prompt=True)
    ends = [index for index, token in enumerate(ids) if token == end_token]
    if len(ends) <= ends_before:
        raise TrainerError(
            Exit.CONFIG,
            Reason.TEMPLATE_UNSUPPORTED,
            "the model's chat template does not end turns with a token of its own, which "
            "environments of several turns need",
            "set the key model to another model",
        )
    return ids[ends[ends_before] + (1 if turn_is_closed else 0) :]
