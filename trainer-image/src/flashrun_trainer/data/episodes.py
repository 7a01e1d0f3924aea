"""Episodes of several turns: the model answers, the environment replies, until one of them is done.

The tokens of an episode are kept as they were sampled; what the environment says is appended to
them, so that training sees exactly what the model saw. Only the model's own tokens are learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.data.chat_template import token_ids, turn_end
from flashrun_trainer.data.environment import FAILURES, Answer, Environment, Message, checked
from flashrun_trainer.data.rewards import failed
from flashrun_trainer.pod.trainer_errors import TrainerError


@dataclass
class Episode:
    """One episode while it is played."""

    example: Any
    messages: list[Message]
    prompt_ids: list[int]
    turns_left: int
    completion_ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    """1 for the model's tokens, 0 for the environment's."""
    thoughts: list[str] = field(default_factory=list)
    """The first reasoning of every turn."""
    response: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    """What the environment has raised; the episode ends with the turn that is being played."""
    over: bool = False

    def __post_init__(self) -> None:
        self.opening = len(self.messages)
        """How many of the messages the episode began with."""

    @property
    def ids(self) -> list[int]:
        """Everything that the model has seen and said."""
        return self.prompt_ids + self.completion_ids

    def answer(self, environment: Environment, ids: Sequence[int], text: Answer) -> list[Message]:
        """Take the model's turn and return what the environment replies; nothing when over."""
        self._append(ids, 1)
        self.messages.append({"role": "assistant", "content": str(text)})
        self.thoughts.append(text.first_thought)
        self.turns_left -= 1
        self.response = text
        if self.error is not None:
            self.over = True
            return []
        try:
            step = environment.sdk.step_episode(self.example, list(self.messages), text)
            replies = checked(step.messages) if step.messages else []
            self.metadata |= step.metadata
            if step.final_response_text is not None:
                self.response = step.final_response_text
            done = bool(step.done)
        except FAILURES as error:
            self.error, self.over = error, True
            return []
        self.messages += replies
        self.over = done or self.turns_left <= 0 or not replies
        return [] if self.over else replies

    def hear(self, ids: Sequence[int]) -> None:
        """Append the tokens of the environment's reply."""
        self._append(ids, 0)

    def _append(self, ids: Sequence[int], learned: int) -> None:
        self.completion_ids += ids
        self.mask += [learned] * len(ids)

    def finished(self) -> Any:
        """Return the episode as the SDK scores it, or its score when it has failed."""
        from freesolo.environments import EnvironmentEpisode, EnvironmentTurn

        if self.error is not None:
            return failed(self.error)
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


def reply_ids(tokenizer: Any, replies: list[Message], thinking: bool, closed: bool) -> list[int]:
    """Return the tokens between the end of an answer and the beginning of the next one.

    ``closed`` says that the answer ended with the end-of-turn token; a cut-off one gets it now.

    Raises:
        TrainerError: the model's template does not end turns with a token of its own.
    """
    question: Message = {"role": "user", "content": "?"}
    answer: Message = {"role": "assistant", "content": "!"}
    end = turn_end(tokenizer, thinking)
    before = token_ids(tokenizer, [question], thinking, answer=False).count(end)
    whole = token_ids(tokenizer, [question, answer, *replies], thinking, answer=True)
    ends = [index for index, token in enumerate(whole) if token == end]
    if len(ends) <= before:
        raise TrainerError(
            Exit.CONFIG,
            Reason.TEMPLATE_UNSUPPORTED,
            "the model's chat template does not end turns with a token of its own, which "
            "environments of several turns need",
            "choose another model",
        )
    return whole[ends[before] + (1 if closed else 0) :]
