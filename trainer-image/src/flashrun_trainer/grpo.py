"""GRPO: learn from the rewards that the environment gives to sampled completions.

A step samples ``group_size`` completions for each of ``batch_size`` prompts, scores them, and moves
the adapter towards those that did better than their group. Prompts are rendered here, once, and
TRL's dataset holds nothing but their row numbers.
"""

import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from flashrun.spec.outcome import Exit
from flashrun.spec.records import ResolvedRun
from flashrun_trainer import arguments, loop, model, scores
from flashrun_trainer.environment import Answer, Environment, Message, blamed
from flashrun_trainer.episodes import Episode, reply_ids
from flashrun_trainer.failures import TrainerError
from flashrun_trainer.session import Session
from flashrun_trainer.sft import rendered

log = logging.getLogger(__name__)

_SAMPLED_AT_ONCE: Final = 128
"""Completions that are sampled together; the cache of keys and values has to fit the memory."""
_FLAT_STEPS: Final = 5
"""Steps without spread in the rewards after which a warning is shown."""
_SHOWN_ROLLOUTS: Final = 8
"""Rollouts of a step that are kept in storage."""


class Prompt(NamedTuple):
    """One example, ready to be answered."""

    example: Any
    messages: list[Message]
    ids: list[int]
    opens_reasoning: bool
    """Whether the template itself writes the first ``<think>``."""


def train(session: Session) -> Path | None:
    """Train, and return the folder of the final adapter; None when interrupted."""
    run = session.run
    tokenizer = model.load_tokenizer(session.pod.model_folder(run))
    prompts = usable_prompts(session.environment, tokenizer, run)
    settings = arguments.grpo(run, session.machine, session.pod.work / "checkpoints", len(prompts))

    network, adapter = loop.policy(session)
    link = loop.Link(session)
    rewards = Rewards(session, tokenizer, prompts, link)
    trainer = Trainer(
        session,
        prompts,
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
        with blamed("building a prompt"):
            messages = environment.prompt(example)
        ids = rendered(tokenizer, messages, run.thinking, answer=True)
        opens = tokenizer.decode(ids[-4:]).rstrip().endswith("<think>")
        prompts.append(Prompt(example, messages, ids, opens))
    longest = arguments.longest_prompt(run)
    kept = [prompt for prompt in prompts if len(prompt.ids) <= longest]
    room = f"max_length - max_tokens = {longest} tokens"
    if not kept:
        raise TrainerError(
            Exit.DATA,
            "PromptsTooLong",
            f"all {len(prompts)} prompts are longer than {room}",
            "raise train.max_length or lower train.max_tokens",
        )
    if len(kept) < len(prompts):
        dropped = len(prompts) - len(kept)
        log.warning("%d of %d prompts are longer than %s: dropped", dropped, len(prompts), room)
    if len(kept) < run.train.batch_size:
        log.warning(
            "batch_size = %d is lowered to the %d prompts there are",
            *(run.train.batch_size, len(kept)),
        )
    return kept


class Trainer(GRPOTrainer):
    """TRL's trainer with our prompts, our stop sequences and our episodes."""

    def __init__(self, session: Session, prompts: list[Prompt], **settings: Any) -> None:
        self._session = session
        self._prompts = prompts
        play = self.play if session.environment.is_multi_turn else None
        super().__init__(rollout_func=play, **settings)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no card beside each checkpoint; the final adapter gets ours."""

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self._prompts[int(row)].ids for row in prompts], None, {}

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *rest: Any, **more: Any
    ) -> tuple[list[list[int]], None]:
        """Sample in portions that fit the memory, and end completions at stop sequences."""
        sampled: list[list[int]] = []
        for begin in range(0, len(prompt_ids), _SAMPLED_AT_ONCE):
            portion = prompt_ids[begin : begin + _SAMPLED_AT_ONCE]
            ids, _ = super()._generate_single_turn(portion, *rest, **more)
            sampled += ids
        stops = self._session.run.train.stop_sequences
        return [cut_at_stop(self._tokenizer, ids, stops) for ids in sampled], None

    def play(self, prompts: list[str], _: Any) -> dict[str, Any]:
        """Play whole episodes, all of a step at the same pace."""
        session, environment = self._session, self._session.environment
        rows = [self._prompts[int(row)] for row in prompts]
        episodes = [
            Episode(
                row.example,
                [dict(message) for message in row.messages],
                list(row.ids),
                turns_left=environment.sdk.max_episode_turns(row.example),
            )
            for row in rows
        ]
        opens = [row.opens_reasoning for row in rows]
        while active := [index for index, episode in enumerate(episodes) if not episode.over]:
            sampled, _ = self._generate_single_turn(
                [episodes[index].ids for index in active], None, {}, self.num_generations
            )
            turns = list(zip(active, sampled, strict=True))

            def take(turn: tuple[int, list[int]]) -> list[Message]:
                index, ids = turn
                text = answer_text(self._tokenizer, ids, session.run.train.stop_sequences)
                return episodes[index].answer(environment, ids, Answer(text, opens[index]))

            for (index, ids), replies in zip(turns, environment.map(take, turns), strict=True):
                if replies:
                    self._reply(episodes[index], ids, replies)
        return {
            "prompt_ids": [episode.prompt_ids for episode in episodes],
            "completion_ids": [episode.completion_ids for episode in episodes],
            "logprobs": None,
            "env_mask": [episode.mask for episode in episodes],
            "episode": [episode.finished() for episode in episodes],
        }

    def _reply(self, episode: Episode, ids: list[int], replies: list[Message]) -> None:
        """Let the model hear a reply, unless there would be no room for another answer."""
        run = self._session.run
        closed = ids[-1] == self._tokenizer.eos_token_id
        heard = reply_ids(self._tokenizer, replies, run.thinking, closed)
        if len(episode.ids) + len(heard) > arguments.longest_prompt(run):
            episode.over = True
        else:
            episode.hear(heard)


class Rewards:
    """The reward function that TRL calls, once a step."""

    def __init__(
        self, session: Session, tokenizer: Any, prompts: list[Prompt], link: loop.Link
    ) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._link = link
        self._flat_steps = 0

    def reward(
        self,
        prompts: list[str],
        completion_ids: list[list[int]],
        trainer_state: Any,
        episode: list[Any] | None = None,
        **_: Any,
    ) -> list[float]:
        """Return a reward for every completion; raises ``TrainerError`` when all fail."""
        step = trainer_state.global_step + 1
        rows = [self._prompts[int(row)] for row in prompts]
        answers = [
            Answer(self._text(ids), row.opens_reasoning)
            for row, ids in zip(rows, completion_ids, strict=True)
        ]
        found = self._scores([row.example for row in rows], answers, episode)
        if trace := scores.first_trace(found):
            log.warning("one of step %d's rewards failed\n%s", step, trace)
        scores.refuse_if_all_failed(found, step)
        rewards = [
            score.reward - self._penalty(answer)
            for score, answer in zip(found, answers, strict=True)
        ]
        self._session.reporter.warn(scores.warning(found, step) or self._about_spread(rewards))
        self._link.extra = scores.means(found)
        self._keep_some(step, rows, answers, found, rewards)
        return rewards

    def _scores(
        self, examples: Sequence[Any], answers: Sequence[Answer], episodes: list[Any] | None
    ) -> list[scores.Score]:
        environment = self._session.environment
        if episodes is not None:
            return scores.of_episodes(environment, examples, episodes)
        return scores.of_answers(environment, examples, answers)

    def _text(self, ids: list[int]) -> str:
        return answer_text(self._tokenizer, ids, self._session.run.train.stop_sequences)

    def _penalty(self, answer: Answer) -> float:
        coefficient = self._session.run.train.thinking_length_penalty_coef
        if not coefficient or not self._session.run.thinking:
            return 0.0
        thought = self._tokenizer(answer.first_thought, add_special_tokens=False)
        return coefficient * len(thought["input_ids"])

    def _about_spread(self, rewards: Sequence[float]) -> str:
        """Return a sentence when no group has had better and worse completions for a while."""
        group = self._session.run.train.group_size or 1
        groups = (rewards[begin : begin + group] for begin in range(0, len(rewards), group))
        flat = all(len(set(found)) == 1 for found in groups)
        self._flat_steps = self._flat_steps + 1 if flat else 0
        if self._flat_steps < _FLAT_STEPS:
            return ""
        return (
            f"all completions of a prompt have had the same reward for {_FLAT_STEPS} steps or "
            "more, so nothing is learned: make score_response tell better from worse"
        )

    def _keep_some(
        self,
        step: int,
        rows: Sequence[Prompt],
        answers: Sequence[Answer],
        found: Sequence[scores.Score],
        rewards: Sequence[float],
    ) -> None:
        lines = [
            {
                "step": step,
                "prompt": row.messages,
                "completion": answer.raw,
                "reward": reward,
                "metrics": score.metrics,
                **({"error": score.error} if score.error else {}),
            }
            for row, answer, score, reward in islice(
                zip(rows, answers, found, rewards, strict=True), _SHOWN_ROLLOUTS
            )
        ]
        self._session.reporter.rollouts(step, lines)


def answer_text(tokenizer: Any, ids: Sequence[int], stops: Sequence[str]) -> str:
    """Return what was sampled as text, up to the first stop sequence."""
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


def cut_at_stop(tokenizer: Any, ids: list[int], stops: Sequence[str]) -> list[int]:
    """Return the tokens up to the one that completes a stop sequence."""

    def stopped(count: int) -> bool:
        text = tokenizer.decode(ids[:count], skip_special_tokens=True)
        return any(stop in text for stop in stops)

    if not stops or not stopped(len(ids)):
        return ids
    return ids[: next(count for count in range(1, len(ids) + 1) if stopped(count))]
