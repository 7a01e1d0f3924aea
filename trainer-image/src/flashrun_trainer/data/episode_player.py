"""Plays episodes with a model, all of them turn by turn together."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from flashrun.api.records import ResolvedRun
from flashrun_trainer.data.chat_template import tokenize_messages
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.data.episodes import Episode, play_turns, start_episodes
from flashrun_trainer.data.messages import Answer, Message
from flashrun_trainer.data.prompts import Prompt, parse_answer
from flashrun_trainer.data.tool_calls import read_sampled
from flashrun_trainer.data.tool_definitions import Tool

Sample = Callable[[Sequence[int], list[list[int]]], Sequence[list[int]]]
"""Takes indices of episodes and their token ids so far; returns the next answer of each."""


@dataclass(frozen=True)
class EpisodePlayer:
    """Plays episodes of an environment of several turns."""

    environment: Environment
    tokenizer: Any
    run: ResolvedRun
    longest: int
    """Most tokens of an episode before an answer."""
    sharded: bool
    """Whether ranks can only sample together."""
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while the environment works."""

    def play(self, prompts: Sequence[Prompt], sample: Sample) -> list[Episode]:
        """Play an episode of each prompt to its end."""
        episodes = self._start(prompts)
        while active := self._to_sample(episodes):
            sampled = sample(active, [episodes[index].ids for index in active])
            turns = [
                (episodes[index], ids, self._answer(prompts[index], episodes[index], ids))
                for index, ids in zip(active, sampled, strict=True)
                if not episodes[index].done
            ]
            with self.waiting():
                replies = play_turns(self.environment, turns)
            for (episode, *_), messages in zip(turns, replies, strict=True):
                if messages:
                    thinking = self.run.thinking
                    episode.add_reply(self.tokenizer, messages, thinking, self.longest)
        return episodes

    def _answer(self, prompt: Prompt, episode: Episode, ids: list[int]) -> Answer:
        """Return what was sampled as the environment sees it."""
        answer = parse_answer(self.tokenizer, self.run, ids, prompt.opens_reasoning)
        if self.environment.reads_calls:
            answer.sampled = read_sampled(
                self.tokenizer, self.run, episode.ids, ids, answer, prompt.tools
            )
        return answer

    def _start(self, prompts: Sequence[Prompt]) -> list[Episode]:
        """Start an episode for every prompt, each with its own call of ``start_episode``.

        What the environment sets up there is for one episode, and its messages may differ each
        time.
        """
        examples = [self.environment.begin_episode(prompt.example) for prompt in prompts]
        with self.waiting():
            openings = start_episodes(self.environment, examples)
        return list(map(self._start_one, prompts, examples, openings))

    def _start_one(
        self, prompt: Prompt, example: Any, opening: tuple[list[Message], int] | BaseException
    ) -> Episode:
        """Start one episode; one that cannot start is played for a turn and not learned.

        TRL needs a completion for every prompt.
        """
        messages, ids, turns, error = prompt.messages, prompt.ids, 1, None
        try:
            if isinstance(opening, BaseException):
                raise opening
            own_messages, turns = opening
            if own_messages != messages:
                messages, ids = own_messages, self._tokenize_opening(own_messages, prompt.tools)
        except BaseException as failure:
            messages, ids, error = prompt.messages, prompt.ids, failure
        return Episode(
            example,
            [dict(message) for message in messages],
            list(ids),
            turns_left=turns,
            error=error,
        )

    def _tokenize_opening(self, messages: list[Message], tools: Sequence[Tool]) -> list[int]:
        """Return an opening as token ids; raises an error if the episode cannot begin with it."""
        ids = tokenize_messages(self.tokenizer, messages, self.run.thinking, True, tools)
        if len(ids) > self.longest:
            raise ValueError(
                f"start_episode gave {len(ids)} tokens, and max_length - max_tokens "
                f"leaves {self.longest}: shorten it, or raise train.max_length"
            )
        return ids

    def _to_sample(self, episodes: Sequence[Episode]) -> Sequence[int]:
        """Return the indices of the episodes that get another answer: those that are not done.

        Ranks with a sharded model can only sample together, and ranks that take turns can only call
        the environment together. While one rank has an episode that is not done, all ranks sample
        for all of their episodes; extra answers are ignored.
        """
        active = [index for index, episode in enumerate(episodes) if not episode.done]
        if not (self.sharded or self.environment.takes_turns):
            return active
        (any_active,) = self.environment.process_group.any_rank(bool(active))
        return range(len(episodes)) if any_active else ()
