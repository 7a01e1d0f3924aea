"""GRPO: learn from the rewards that the environment gives to sampled completions.

A step samples ``group_size`` completions for each of ``batch_size`` prompts, scores them, and moves
the adapter towards those that did better than their group. Prompts are rendered here, once, and
TRL's dataset holds nothing but their row numbers.
"""

import logging
import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import Batching, ResolvedRun
from flashrun_trainer import loop, model, trl_arguments
from flashrun_trainer.context import Session
from flashrun_trainer.data import generation, rewards, stopping
from flashrun_trainer.data.chat_template import token_ids, turn_end
from flashrun_trainer.data.environment import (
    FAILURES,
    Answer,
    Environment,
    Message,
    naming,
    row_name,
)
from flashrun_trainer.data.episodes import Episode, reply_ids
from flashrun_trainer.pod.trainer_errors import TrainerError
from flashrun_trainer.records.timing import Meter, Phase

log = logging.getLogger(__name__)

_SAMPLED_AT_ONCE: Final = 128
"""Completions that transformers samples together; their keys and values have to fit the memory."""
_SHOWN_ROLLOUTS: Final = 8
"""Rollouts of a step that are kept in storage."""


class Prompt(NamedTuple):
    """One example, ready to be answered."""

    example: Any
    messages: list[Message]
    ids: list[int]
    opens_reasoning: bool
    """Whether the template itself writes the first ``<think>``."""


class Judged(NamedTuple):
    """What a completion was worth, in a form that processes can tell each other."""

    prompt: list[Message]
    raw: str
    ended: bool
    """Whether the model has ended it."""
    score: rewards.Score
    penalty: float

    @property
    def reward(self) -> float:
        """What the policy learns from."""
        return self.score.reward - self.penalty


def train(session: Session) -> Path | None:
    """Train, and return the folder of the final adapter; None when interrupted."""
    run = session.run
    link = loop.Link(session)
    tokenizer = model.load_tokenizer(session.pod.model_folder(run))
    prompts = usable_prompts(session.environment, tokenizer, run)
    loop.same_everywhere(session.ranks, (prompt.ids for prompt in prompts))
    settings = trl_arguments.grpo(
        run, session.machine, session.pod.work / "checkpoints", len(prompts)
    )
    taken = trl_arguments.prompts_per_step(run, len(prompts), session.machine.world_size)
    if taken < run.train.batch_size:
        log.warning(
            "batch_size = %d is lowered to %d (prompts: %d, processes: %d)",
            *(run.train.batch_size, taken, len(prompts), session.machine.world_size),
        )
    session.reporter.batching(
        Batching(
            world_size=session.machine.world_size,
            micro_batch_size=settings["per_device_train_batch_size"],
            gradient_accumulation_steps=settings["gradient_accumulation_steps"],
            generation_batch_size=taken * settings["num_generations"],
        )
    )

    network, adapter = loop.policy(session)
    settings |= generation.settings(run, generation.engine(run, session.machine, network))
    ends = model.end_tokens(network, tokenizer)
    rewards = Rewards(session, tokenizer, ends, prompts, link)
    trainer = Trainer(
        session,
        prompts,
        link.meter,
        model=network,
        peft_config=LoraConfig(**adapter) if adapter else None,
        args=GRPOConfig(**settings),
        train_dataset=Dataset.from_list([{"prompt": str(row)} for row in range(len(prompts))]),
        processing_class=tokenizer,
        reward_funcs=rewards.reward,
        callbacks=[link],
    )
    return loop.drive(trainer, link, session)


def usable_prompts(environment: Environment, tokenizer: Any, run: ResolvedRun) -> list[Prompt]:
    """Render the prompts and drop those that leave no room for a completion, saying how many.

    Raises:
        TrainerError: nothing is left.
    """
    examples = environment.examples[: run.train.max_examples or None]
    prompts = []
    for example in examples:
        messages = environment.prompt(example)
        with naming(row_name(example)):
            ids = token_ids(tokenizer, messages, run.thinking, answer=True)
        opens = tokenizer.decode(ids[-4:]).rstrip().endswith("<think>")
        prompts.append(Prompt(example, messages, ids, opens))
    longest = trl_arguments.longest_prompt(run)
    kept = [prompt for prompt in prompts if len(prompt.ids) <= longest]
    room = f"max_length - max_tokens = {longest} tokens"
    if not kept:
        raise TrainerError(
            Exit.DATA,
            Reason.PROMPTS_TOO_LONG,
            f"all {len(prompts)} prompts are longer than {room}",
            "raise train.max_length or lower train.max_tokens",
        )
    if len(kept) < len(prompts):
        dropped = len(prompts) - len(kept)
        log.warning("%d of %d prompts are longer than %s: dropped", dropped, len(prompts), room)
    return kept


class Trainer(loop.WithoutCards, GRPOTrainer):
    """TRL's trainer with our prompts, our stop sequences and our episodes."""

    def __init__(
        self, session: Session, prompts: list[Prompt], meter: Meter, **settings: Any
    ) -> None:
        self._session = session
        self._prompts = prompts
        self._meter = meter
        play = self.play if session.environment.is_multi_turn else None
        super().__init__(rollout_func=play, **settings)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self._prompts[int(row)].ids for row in prompts], None, {}

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *rest: Any, **more: Any
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        """Sample in portions that fit the memory, and end completions at stop sequences."""
        at_once = len(prompt_ids) if self.use_vllm else _SAMPLED_AT_ONCE
        stop_sequences = self._session.run.train.stop_sequences
        for_transformers = () if self.use_vllm else stop_sequences
        sampled: list[list[int]] = []
        logprobs: list[list[float]] = []
        heeded = stopping.heeded(self.model, self._tokenizer, for_transformers)
        with self._meter.timed(Phase.GENERATION), heeded:
            for begin in range(0, len(prompt_ids), at_once):
                portion = prompt_ids[begin : begin + at_once]
                ids, known = super()._generate_single_turn(portion, *rest, **more)
                sampled += ids
                logprobs += known or []
        ended = [stopping.ids_until(self._tokenizer, ids, stop_sequences) for ids in sampled]
        if not self.use_vllm:
            return ended, None
        return ended, [row[: len(ids)] for row, ids in zip(logprobs, ended, strict=True)]

    def play(self, prompts: list[str], _: Any) -> dict[str, Any]:
        """Play whole episodes, all of a step at the same pace."""
        with generation.awake(self.vllm_generation) if self.use_vllm else nullcontext():
            return self._play(prompts)

    def _play(self, prompts: list[str]) -> dict[str, Any]:
        session, environment = self._session, self._session.environment
        rows = [self._prompts[int(row)] for row in prompts]
        episodes = self._begun(rows)
        opens = [row.opens_reasoning for row in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        while played := self._played(episodes):
            sampled, known = self._generate_single_turn(
                [episodes[index].ids for index in played], None, {}, self.num_generations
            )
            for index, row in zip(played, known or [], strict=False):
                logprobs[index] += row
            pairs = zip(played, sampled, strict=True)
            turns = [(index, ids) for index, ids in pairs if not episodes[index].over]

            def take(turn: tuple[int, list[int]]) -> list[Message]:
                index, ids = turn
                text = stopping.text_until(self._tokenizer, ids, session.run.train.stop_sequences)
                answer = Answer(text, session.run.thinking, opens[index])
                return episodes[index].answer(environment, ids, answer)

            with self._meter.timed(Phase.ENVIRONMENT):
                taken = environment.map(take, turns)
            for (index, ids), replies in zip(turns, taken, strict=True):
                if replies:
                    self._reply(episodes[index], ids, replies)
        return {
            "prompt_ids": [episode.prompt_ids for episode in episodes],
            "completion_ids": [episode.completion_ids for episode in episodes],
            "logprobs": [
                generation.spread(row, episode.mask)
                for row, episode in zip(logprobs, episodes, strict=True)
            ]
            if self.use_vllm
            else None,
            "env_mask": [episode.mask for episode in episodes],
            "episode": episodes,
        }

    def _begun(self, rows: Sequence[Prompt]) -> list[Episode]:
        """Begin an episode for every row, each with an opening of its own.

        What ``start_episode`` sets up is for one episode, and what it says may differ each time.
        """
        environment = self._session.environment

        def opened(row: Prompt) -> list[Message] | BaseException:
            try:
                return environment.opening(row.example)
            except FAILURES as error:
                return error

        with self._meter.timed(Phase.ENVIRONMENT):
            openings = environment.map(opened, rows)
        return [self._episode(row, opening) for row, opening in zip(rows, openings, strict=True)]

    def _episode(self, row: Prompt, opening: list[Message] | BaseException) -> Episode:
        """Begin one episode; one that cannot begin is played for a turn, and has failed.

        Raises:
            TrainerError: ``max_episode_turns`` fails, or the template refuses the opening.
        """
        run, error = self._session.run, None
        messages, ids = row.messages, row.ids
        if isinstance(opening, BaseException):
            error = opening
        elif opening != messages:
            longest = trl_arguments.longest_prompt(run)
            own = token_ids(self._tokenizer, opening, run.thinking, answer=True)
            if len(own) <= longest:
                messages, ids = opening, own
            else:
                error = ValueError(
                    f"start_episode gave {len(own)} tokens, and max_length - max_tokens leaves "
                    f"{longest}: shorten it, or raise train.max_length"
                )
        return Episode(
            row.example,
            [dict(message) for message in messages],
            list(ids),
            turns_left=self._session.environment.turns(row.example),
            error=error,
        )

    def _played(self, episodes: Sequence[Episode]) -> Sequence[int]:
        """Return the episodes that get another answer: those that are not over.

        Of a model that is spread over processes none can sample alone: while one of them has an
        episode to play, all sample for all of theirs.
        """
        active = [index for index, episode in enumerate(episodes) if not episode.over]
        if not self._session.sharded:
            return active
        (goes_on,) = self._session.ranks.any_of(bool(active))
        return range(len(episodes)) if goes_on else ()

    def _reply(self, episode: Episode, ids: list[int], replies: list[Message]) -> None:
        """Let the model hear a reply, unless there would be no room for another answer."""
        run = self._session.run
        closed = ids[-1] == turn_end(self._tokenizer, run.thinking)
        heard = reply_ids(self._tokenizer, replies, run.thinking, closed)
        if len(episode.ids) + len(heard) > trl_arguments.longest_prompt(run):
            episode.over = True
        else:
            episode.hear(heard)


class Rewards:
    """The reward function that TRL calls, once a step."""

    def __init__(
        self,
        session: Session,
        tokenizer: Any,
        ends: frozenset[int],
        prompts: list[Prompt],
        link: loop.Link,
    ) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._ends = ends
        """Tokens that end a completion."""
        self._prompts = prompts
        self._link = link
        self._waste = rewards.Waste()

    def reward(
        self,
        prompts: list[str],
        completion_ids: list[list[int]],
        trainer_state: Any,
        episode: list[Episode] | None = None,
        **_: Any,
    ) -> list[float]:
        """Return a reward for every completion; raises ``TrainerError`` when all fail.

        What is said about a step is about the completions of all processes.
        """
        rows = [self._prompts[int(row)] for row in prompts]
        if episode is None:
            asked = [row.messages for row in rows]
            answers = list(map(self._answer, rows, completion_ids))
            raw = [answer.raw for answer in answers]
            thoughts = [[answer.first_thought] for answer in answers]
            responses: Sequence[Any] = answers
        else:
            asked = [one.messages[: one.opening] for one in episode]
            # A stop sequence ends a turn, not the turns that follow it.
            raw = [stopping.text_until(self._tokenizer, ids, ()) for ids in completion_ids]
            thoughts = [one.thoughts for one in episode]
            responses = [one.finished() for one in episode]
        with self._link.meter.timed(Phase.SCORING):
            found = self._scores([int(row) for row in prompts], responses)
        own = [
            Judged(messages, text, ids[-1] in self._ends, score, self._penalty(thought))
            for messages, text, ids, score, thought in zip(
                asked, raw, completion_ids, found, thoughts, strict=True
            )
        ]
        everybodys = self._session.ranks.gathered(own)
        self._say(trainer_state.global_step + 1, [one for part in everybodys for one in part])
        return [one.reward for one in own]

    def _answer(self, row: Prompt, ids: Sequence[int]) -> Answer:
        run = self._session.run
        text = stopping.text_until(self._tokenizer, ids, run.train.stop_sequences)
        return Answer(text, run.thinking, row.opens_reasoning)

    def _say(self, step: int, judged: Sequence[Judged]) -> None:
        """Report how a step's completions did; raises ``TrainerError`` when none has a score."""
        found = [one.score for one in judged]
        if trace := rewards.first_trace(found):
            log.warning("one of step %d's rewards failed\n%s", step, trace)
        self._keep_some(step, judged)
        rewards.refuse_if_all_failed(found, step)
        train = self._session.run.train
        wasted = self._waste.after(
            [one.reward for one in judged],
            train.group_size or 1,
            cut_at=None
            if any(one.ended for one in judged) or train.stop_sequences
            else train.max_tokens,
        )
        self._session.reporter.warn("; ".join(filter(None, (rewards.warning(found, step), wasted))))
        self._link.extra = rewards.means(found)
        penalties = [one.penalty for one in judged]
        if any(penalties):
            self._link.extra["thinking_penalty"] = statistics.fmean(penalties)

    def _scores(self, rows: Sequence[int], responses: Sequence[Any]) -> list[rewards.Score]:
        """Score responses to the prompts ``rows``."""
        if self._session.ranks.world > 1 and rewards.compares(self._session.environment):
            # Those that are compared with each other may have been sampled by several processes.
            return self._compared(rows, responses)
        examples = [self._prompts[row].example for row in rows]
        return rewards.of_responses(self._session.environment, examples, responses)

    def _compared(self, rows: Sequence[int], responses: Sequence[Any]) -> list[rewards.Score]:
        """Score whole groups, each in one process, and return the scores of our own responses."""
        ranks, size = self._session.ranks, self._session.run.train.group_size or 1
        parts = ranks.gathered(list(zip(rows, responses, strict=True)))
        pairs = [pair for part in parts for pair in part]
        groups = [pairs[begin : begin + size] for begin in range(0, len(pairs), size)]
        share = [pair for group in groups[ranks.number :: ranks.world] for pair in group]
        examples = [self._prompts[row].example for row, _ in share]
        scored = rewards.of_responses(
            self._session.environment, examples, [response for _, response in share]
        )
        by_rank = [iter(part) for part in ranks.gathered(scored)]
        everything = [
            next(by_rank[index % ranks.world]) for index, group in enumerate(groups) for _ in group
        ]
        begin = sum(map(len, parts[: ranks.number]))
        return everything[begin : begin + len(rows)]

    def _penalty(self, thoughts: Sequence[str]) -> float:
        """Return what the first reasoning of every turn costs, by the token."""
        coefficient = self._session.run.train.thinking_length_penalty_coef
        if not coefficient or not self._session.run.thinking:
            return 0.0
        tokens = (self._tokenizer(thought, add_special_tokens=False) for thought in thoughts)
        return coefficient * sum(len(found["input_ids"]) for found in tokens)

    def _keep_some(self, step: int, judged: Sequence[Judged]) -> None:
        lines = [
            {
                "step": step,
                "prompt": one.prompt,
                "completion": one.raw,
                "reward": one.reward,
                "score": one.score.reward,
                "metrics": one.score.metrics,
                **({"error": one.score.error} if one.score.error else {}),
            }
            for one in judged[:_SHOWN_ROLLOUTS]
        ]
        self._session.reporter.rollouts(step, lines)
