"""GRPO: learn from the rewards that the environment gives to sampled completions.

A step samples ``group_size`` completions for each of ``batch_size`` prompts, and scores them. The
advantage of a completion is its reward minus the mean reward of its group, and the adapter learns
to make completions with a positive advantage more likely.

``train`` is the whole method, top to bottom. ``GrpoTrainer`` is TRL's trainer with our sampling,
``RewardFunction`` is what TRL calls to score a step.

TRL's dataset has a single column of text, ``prompt``. It holds the number of a prompt in our own
list, as text, so prompts are rendered here, once, and TRL cannot render them differently.
"""

import logging
import math
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedRun
from flashrun_trainer import evaluator, loop, model, trl_arguments
from flashrun_trainer.completion_portions import (
    MOST_PORTIONS,
    among_all_rows,
    compute_in_portions,
    rows_to_compute,
)
from flashrun_trainer.context import TrainContext
from flashrun_trainer.data import advantages, generation, rewards, sampler_agreement, stopping
from flashrun_trainer.data.advantages import Outcome
from flashrun_trainer.data.calls import check_left_behind
from flashrun_trainer.data.conversations import join
from flashrun_trainer.data.dataset import check_same_examples, example_name
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.data.episode_player import EpisodePlayer
from flashrun_trainer.data.episodes import Episode, check_template
from flashrun_trainer.data.messages import Message
from flashrun_trainer.data.prompt_order import PromptOrder, PromptSampler
from flashrun_trainer.data.prompts import (
    Prompt,
    make_episode_prompts,
    make_prompt,
    parse_answer,
)
from flashrun_trainer.data.random_stream import derive_seed
from flashrun_trainer.data.reasoning import decode
from flashrun_trainer.data.retries import NothingJudgedError, plan_retry, retry_warning
from flashrun_trainer.data.template_forms import template_form, unwritten_remark
from flashrun_trainer.data.unread_keys import json_remark, unread_remark
from flashrun_trainer.evaluator import Evaluator
from flashrun_trainer.pod.trainer_errors import TrainerError
from flashrun_trainer.records.timing import StepPhase, StepTimer
from flashrun_trainer.samplers import VllmSampler, installed_for_transformers
from flashrun_trainer.shared_prompts import can_share, compute_shared
from flashrun_trainer.sync_proof import SyncProof

log = logging.getLogger(__name__)

_GENERATION_BATCH: Final = 128
"""Completions that transformers samples together; their keys and values must fit the memory."""
_STORED_ROLLOUTS: Final = 8
"""Rollouts of a step that are stored."""


class ScoredCompletion(NamedTuple):
    """A completion with its score, in a form that ranks can send to each other."""

    prompt: list[Message]
    raw: str
    """The completion as sampled."""
    example: str
    """The name of the example."""
    cut_off: bool
    """Whether ``max_tokens`` has cut off one of its turns, and it is therefore not learned."""
    score: rewards.Score
    penalty: float

    @property
    def reward(self) -> float:
        """The reward from which the policy learns."""
        return self.score.reward - self.penalty

    @property
    def result(self) -> dict[str, Any]:
        """The score as rollout files show it; a completion that was not judged has no number."""
        if self.score.error:
            return {"reward": None, "score": None, "metrics": {}, "error": self.score.error}
        score = self.score
        return {"reward": self.reward, "score": score.reward, "metrics": score.metrics}

    @property
    def outcome(self) -> Outcome:
        """What decides how the completion is learned."""
        return Outcome(self.reward, judged=not self.score.error, cut_off=self.cut_off)


def train(context: TrainContext) -> Path | None:
    """Train, and return the folder of the final adapter; None on ranks above 0."""
    run, machine = context.run, context.machine
    callback = loop.TrainingCallback(context)

    # Data and arguments first: they are cheap, and most mistakes of a config are found here.
    tokenizer = model.load_tokenizer(context.pod.model_folder(run), run.prompt_date)
    if context.environment.is_multi_turn:
        check_template(context.environment, tokenizer, run.thinking)
    context.environment.random.seed(run.seed, context.attempt.number, context.process_group.rank)
    prompts, remark = load_prompts(context.environment, tokenizer, run)
    check_same_examples(context.process_group, (prompt.ids for prompt in prompts))
    held_out = evaluator.read_held_out(context, tokenizer)
    output = context.pod.work / "checkpoints"
    arguments = trl_arguments.grpo(run, machine, output, len(prompts))
    prompts_per_step = trl_arguments.prompts_per_step(run, len(prompts), machine.world_size)
    if prompts_per_step < run.train.batch_size:
        log.warning(
            "batch_size = %d is lowered to %d (prompts: %d, processes: %d)",
            *(run.train.batch_size, prompts_per_step, len(prompts), machine.world_size),
        )
    for stop in stopping.impossible_stops(tokenizer, run.train):
        log.warning("no completion can contain the stop sequence %r: correct or remove it", stop)
    context.reporter.set_batching(trl_arguments.grpo_batching(run, machine, len(prompts)))
    order = PromptOrder(len(prompts), prompts_per_step, arguments["max_steps"], run.seed)
    callback.epochs_until = order.epochs_until

    network, lora_arguments = loop.load_policy(context)
    engine = generation.detect_engine(run, machine, network)
    arguments |= generation.engine_arguments(run, engine, tokenizer)
    end_token_ids = model.end_token_ids(network, tokenizer)
    reward_function = RewardFunction(context, tokenizer, end_token_ids, prompts, callback, remark)
    trainer = GrpoTrainer(
        context,
        prompts,
        order,
        callback.timer,
        reward_function,
        model=network,
        peft_config=LoraConfig(**lora_arguments) if lora_arguments else None,
        args=GRPOConfig(**arguments),
        train_dataset=Dataset.from_list([{"prompt": str(row)} for row in range(len(prompts))]),
        processing_class=tokenizer,
        reward_funcs=reward_function.reward,  # TRL takes the metric's name from the method's name
        callbacks=[callback],
    )
    if held_out is not None:
        completions = arguments["max_steps"] * prompts_per_step * (run.train.group_size or 1)
        callback.evaluator = Evaluator(
            context,
            held_out,
            tokenizer,
            trainer.model,
            VllmSampler(trainer, tokenizer, run.train.stop_sequences or ())
            if trainer.use_vllm
            else evaluator.transformers_sampler(context, tokenizer, trainer.model),
            lambda measured: (
                measured.answering / max(1, measured.answers) * completions / machine.world_size
            ),
        )
    return loop.run_training(trainer, callback, context)


def load_prompts(
    environment: Environment, tokenizer: Any, run: ResolvedRun
) -> tuple[list[Prompt], str]:
    """Return the rendered prompts that leave room for a completion, and a warning about the data.

    Raises:
        TrainerError: the environment fails, or all prompts are too long.
    """
    examples = environment.examples[: run.train.max_examples or None]
    if environment.is_multi_turn:
        opened = make_episode_prompts(environment, tokenizer, examples, run.thinking)
        prompts, remark = opened.prompts, opened.remark
    else:
        prompts = [make_prompt(environment, tokenizer, item, run.thinking) for item in examples]
        remark = ""
    longest = trl_arguments.longest_prompt(run)
    fitting = [prompt for prompt in prompts if len(prompt.ids) <= longest]
    limit = f"max_length - max_tokens = {longest} tokens"
    if not fitting:
        raise TrainerError(
            Exit.DATA,
            Reason.PROMPTS_TOO_LONG,
            f"all {len(prompts)} prompts are longer than {limit}",
            "raise train.max_length or lower train.max_tokens",
        )
    if len(fitting) < len(prompts):
        dropped = len(prompts) - len(fitting)
        log.warning("%d of %d prompts are longer than %s: dropped", dropped, len(prompts), limit)
    return fitting, "; ".join(filter(None, (remark, data_remark(environment, fitting, tokenizer))))


def data_remark(environment: Environment, prompts: Sequence[Prompt], tokenizer: Any) -> str:
    """Return a warning about what nobody reads or writes of the rows, or an empty string."""
    asked = [
        join(prompt.messages, [], example_name(prompt.example), prompt.tools) for prompt in prompts
    ]
    remarks = (
        environment.row_remark,
        unread_remark(asked, str(tokenizer.chat_template)),
        unwritten_remark(tokenizer, asked),
        json_remark(asked),
    )
    return "; ".join(filter(None, remarks))


# --- sampling -----------------------------------------------------------------------------------


class GrpoTrainer(loop.OwnRecords, GRPOTrainer):
    """TRL's trainer with our prompts and their order, our stop sequences and our episodes."""

    def __init__(
        self,
        context: TrainContext,
        prompts: list[Prompt],
        order: PromptOrder,
        timer: StepTimer,
        reward_function: "RewardFunction",
        **arguments: Any,
    ) -> None:
        self._context = context
        self._prompts = prompts
        self._order = order
        self._timer = timer
        self._reward_function = reward_function
        self._sampled: Any = None
        """What TRL has sampled for this step, while it may be scored again."""
        self._samplings = 0
        """How often this step has sampled: once, or once per turn."""
        self._learned: torch.Tensor | None = None
        """Of the micro-batch whose loss is being computed, whether a row has a learned token."""
        rollout = self.rollout_episodes if context.environment.is_multi_turn else None
        super().__init__(rollout_func=rollout, **arguments)
        self._sync_proof = SyncProof(self.vllm_generation, self.model) if self.use_vllm else None
        self._player = EpisodePlayer(
            context.environment,
            self._tokenizer,
            context.run,
            longest=trl_arguments.longest_prompt(context.run),
            sharded=context.sharded,
            waiting=lambda: timer.timed(StepPhase.ENVIRONMENT),
        )

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Any:
        return PromptSampler(self._order, self.num_generations, self.args.steps_per_generation)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self._prompts[int(row)].ids for row in prompts], None, {}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Sample and score a step, with our advantages, masks and means of rewards.

        TRL's own are over completions that are not learned, too, and in float32.
        """
        batch = self._sample_until_judged(inputs)
        agreement = self._check_sampler(batch) if self.use_vllm else {}
        learning = self._reward_function.learning
        completion_mask = batch["completion_mask"]
        learned = completion_mask.new_tensor(learning.learned).unsqueeze(1)
        batch["advantages"] = batch["advantages"].new_tensor(learning.advantages)
        # tool_mask masks the loss alone. completion_mask is for attention, too: with another one,
        # log-probabilities would differ from those that were computed before.
        batch["tool_mask"] = batch.get("tool_mask", 1) * learned.expand_as(completion_mask)
        metrics = learning.metrics | agreement
        if self.use_vllm:
            metrics |= self._weight_metrics(batch)
        for name, value in metrics.items():
            self._metrics["train"][name] = [value]
        return batch

    def _check_sampler(self, batch: dict[str, Any]) -> dict[str, float]:
        """Check that vLLM of every rank has sampled from the policy; before this step is learned.

        Raises:
            TrainerError: it has not.
        """
        sampled = batch["completion_mask"] * batch.get("tool_mask", 1)
        own = sampler_agreement.measure(
            batch["sampling_per_token_logps"], batch["old_per_token_logps"], sampled
        )
        step, proof = self.state.global_step + 1, self._sync_proof
        gathered = self._context.process_group.all_gather((own, proof.problem if proof else ""))
        sampler_agreement.check_arrival([problem for _, problem in gathered], step)
        by_rank = [disagreement for disagreement, _ in gathered]
        sampler_agreement.check_agreement(by_rank, self.temperature, step)
        return sampler_agreement.agreement_metrics(by_rank, self.temperature)

    def _weight_metrics(self, batch: dict[str, Any]) -> dict[str, float]:
        """Return by length how the correction for vLLM weighs the completions of all ranks."""
        mask = batch["completion_mask"] * batch["tool_mask"]
        lengths = mask.sum(1)
        weights = (batch["importance_sampling_ratio"] * mask).sum(1) / lengths.clamp(min=1)
        own = [pair for pair in zip(weights.tolist(), lengths.tolist(), strict=True) if pair[1]]
        of_all_ranks = chain.from_iterable(self._context.process_group.all_gather(own))
        return sampler_agreement.weight_metrics(of_all_ranks)

    def _sample_until_judged(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Sample and score a step; while nothing of it can be judged, try again after pauses.

        All ranks take the same decisions: they have the scores of all ranks, and rank 0's clock.

        Raises:
            TrainerError: the tries, or the time for them, are used up.
        """
        process_group, step = self._context.process_group, self.state.global_step + 1
        began, metrics = self.state.num_input_tokens_seen, self._metrics["train"]
        metrics_before = {name: list(values) for name, values in metrics.items()}
        self._sampled, rows, tries, first_failure = None, inputs, 0, 0.0
        while True:
            self._samplings, tries = 0, tries + 1
            try:
                batch: dict[str, Any] = super()._generate_and_score_completions(
                    [dict(row) for row in rows]
                )
            except NothingJudgedError as failure:
                now = process_group.broadcast(time.monotonic())
                first_failure = first_failure or now
                retry = plan_retry(failure, step, tries, now - first_failure)
                self._context.reporter.warn(retry_warning(failure, step))
                log.info("try %d of step %d follows in %g s", tries + 1, step, retry.pause_seconds)
                if failure.episodes_failed or not retry.same_prompts:
                    # TRL has counted the completions that are dropped here.
                    self._sampled, self.state.num_input_tokens_seen = None, began
                    metrics.clear()
                    metrics.update(metrics_before)
                if not retry.same_prompts:
                    rows = self._other_prompts(inputs, later=tries)
                self._wait(retry.pause_seconds)
            else:
                self._sampled = None
                return batch

    def _other_prompts(self, inputs: list[dict[str, Any]], later: int) -> list[dict[str, Any]]:
        """Return this rank's rows with the prompts of the step that is ``later`` steps later."""
        step = self.state.global_step
        pairs = zip(self._order.step(step), self._order.step(step + later), strict=True)
        others = {str(own): str(other) for own, other in pairs}
        return [{**row, "prompt": others[row["prompt"]]} for row in inputs]

    def _wait(self, seconds: float) -> None:
        """Wait between two tries; raise when this attempt may not go on."""
        with self._timer.timed(StepPhase.SCORING):
            time.sleep(seconds)
        context = self._context
        if (error := context.reporter.superseded or context.uploader.error) is not None:
            raise error

    def _generate(self, prompts: list[str]) -> Any:
        """Sample completions, unless those of the last try are scored again."""
        if self._sampled is None:
            self._sampled = super()._generate(prompts)
        return self._sampled

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Return a micro-batch's loss; without learned tokens it has no ``kl`` or ``entropy``."""
        tokens = (inputs["completion_mask"] * inputs["tool_mask"]).sum(dim=1)
        self._learned = tokens > 0
        loss = super()._compute_loss(model, inputs)
        self._learned = None
        if not self.accelerator.reduce(tokens.sum(), reduction="sum"):
            for name in ("kl", "entropy"):
                self._metrics["train"][name][-1:] = [math.nan]  # TRL leaves it out of the mean
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **arguments: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Compute log-probabilities and entropies: where transformers samples, with little padding.

        With vLLM, a token's probability is compared with that from before the step, which was
        computed among other rows: in bfloat16, another width would round differently. Ranks compute
        in step with each other, and must take equal numbers of portions, so that prompts are shared
        in a single process only. For the loss, rows without a learned token are not computed, and
        their values are 0.
        """
        compute = super()._get_per_token_logps_and_entropies
        if self.use_vllm or self.aux_loss_enabled:
            result: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None] = compute(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **arguments
            )
            return result
        rows = rows_to_compute(attention_mask, self._learned)
        given = (input_ids[rows], attention_mask[rows], logits_to_keep)
        alone = self._context.process_group.world_size == 1
        at_once = len(rows) <= (batch_size or len(rows))
        # TRL has switched checkpointing off for the reference: it is computed as the policy is.
        may_share = alone and at_once and not self.args.gradient_checkpointing
        if may_share and can_share(model, input_ids.shape[1], logits_to_keep):
            with self.accelerator.autocast():
                logps, entropies = compute_shared(model, *given, MOST_PORTIONS)
        else:
            logps, entropies = compute_in_portions(
                lambda _, *part: compute(model, *part, batch_size, **arguments)[:2],
                *given,
                MOST_PORTIONS if alone else 1,
            )
        count = len(input_ids)
        if entropies is not None:
            entropies = among_all_rows(entropies, rows, count)
        return among_all_rows(logps, rows, count), entropies, None

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        """Sample a completion for each prompt, and cut it at its first stop sequence.

        Returns token ids, and their log-probabilities if vLLM has sampled them, else None.
        """
        # What the environment draws or seeds, also in calls that were left behind, changes nothing.
        # A step samples the same after a resume, and when its prompts are tried again.
        place = (self.state.global_step, self._context.process_group.rank, self._samplings)
        torch.manual_seed(derive_seed(self._context.run.seed, *place))
        self._samplings += 1
        # vLLM schedules its own batches; transformers needs batches that fit the memory.
        batch_size = len(prompt_ids) if self.use_vllm else _GENERATION_BATCH
        stop_sequences = self._context.run.train.stop_sequences or ()
        sampled: list[list[int]] = []
        logprobs: list[list[float]] = []
        installed = (
            nullcontext()
            if self.use_vllm
            else installed_for_transformers(
                self.model, self._tokenizer, stop_sequences, sharded=self._context.sharded
            )
        )
        with self._timer.timed(StepPhase.GENERATION), installed:
            for begin in range(0, len(prompt_ids), batch_size):
                batch = prompt_ids[begin : begin + batch_size]
                batch_ids, batch_logprobs = super()._generate_single_turn(batch, *args, **kwargs)
                sampled += batch_ids
                logprobs += batch_logprobs or []
        cut = [stopping.ids_until_stop(self._tokenizer, ids, stop_sequences) for ids in sampled]
        if not self.use_vllm:
            return cut, None
        return cut, [row[: len(ids)] for row, ids in zip(logprobs, cut, strict=True)]

    def rollout_episodes(self, prompts: list[str], _: Any) -> dict[str, Any]:
        """Play one episode per prompt, all of them turn by turn together (TRL's rollout_func)."""
        with generation.vllm_awake(self.vllm_generation) if self.use_vllm else nullcontext():
            return self._rollout_episodes([self._prompts[int(row)] for row in prompts])

    def _rollout_episodes(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        logprobs: list[list[float]] = [[] for _ in prompts]

        def sample(indices: Sequence[int], prompt_ids: list[list[int]]) -> list[list[int]]:
            sampled, sampled_logprobs = self._generate_single_turn(
                prompt_ids, None, {}, self.num_generations
            )
            for index, row in zip(indices, sampled_logprobs or [], strict=False):
                logprobs[index] += row
            return sampled

        episodes = self._player.play(prompts, sample)
        return {
            "prompt_ids": [episode.prompt_ids for episode in episodes],
            "completion_ids": [episode.completion_ids for episode in episodes],
            "logprobs": [
                generation.align_logprobs(row, episode.mask)
                for row, episode in zip(logprobs, episodes, strict=True)
            ]
            if self.use_vllm
            else None,
            "env_mask": [episode.mask for episode in episodes],
            "episode": episodes,
        }


# --- scoring ------------------------------------------------------------------------------------


class Learning(NamedTuple):
    """How a step's completions are learned; lists have one item per completion of this rank."""

    advantages: list[float]
    learned: list[bool]
    metrics: dict[str, float]
    """Metrics of the rewards of all ranks, under TRL's names; NaN where there is no value."""


class RewardFunction:
    """The reward function that TRL calls once per step."""

    def __init__(
        self,
        context: TrainContext,
        tokenizer: Any,
        end_token_ids: frozenset[int],
        prompts: list[Prompt],
        callback: loop.TrainingCallback,
        data_remark: str = "",
    ) -> None:
        self._context = context
        self._tokenizer = tokenizer
        self._end_token_ids = end_token_ids
        """Tokens that end a completion."""
        self._masks_cut_off = stopping.masks_cut_off(tokenizer, context.run.train)
        self._prompts = prompts
        self._callback = callback
        self._data_remark = data_remark
        """A warning about the data, which status shows in every step."""
        self._wasted_steps = rewards.WastedStepCounter()
        self._logged_metrics: set[str] = set()
        """Metrics of which the log says that they are left out."""
        self.learning = Learning([], [], {})
        """How the completions of the newest step are learned."""

    def reward(
        self,
        prompts: list[str],
        completion_ids: list[list[int]],
        trainer_state: Any,
        episode: list[Episode] | None = None,
        **_: Any,
    ) -> list[float]:
        """Return the reward of every completion of this rank; ``episode`` has one per completion.

        Metrics and warnings are about the completions of all ranks.

        Raises:
            NothingJudgedError: the reward fails for all completions of all ranks.
            TrainerError: too many calls of the environment hang.
        """
        rows = [int(row) for row in prompts]
        asked = [self._prompts[row] for row in rows]
        if episode is None:
            answers = [
                parse_answer(self._tokenizer, self._context.run, ids, prompt.opens_reasoning)
                for prompt, ids in zip(asked, completion_ids, strict=True)
            ]
            messages = [prompt.messages for prompt in asked]
            raw = [answer.raw for answer in answers]
            thoughts = [[answer.first_thought] for answer in answers]
            responses: Sequence[Any] = answers
            last_ids = [ids[-1:] for ids in completion_ids]
        else:
            messages = [played.messages[: played.opening_length] for played in episode]
            # A stop sequence ends a turn of an episode, not the episode: cut nothing here.
            form = template_form(self._tokenizer).reasoning
            raw = [decode(self._tokenizer, ids, form) for ids in completion_ids]
            thoughts = [played.thoughts for played in episode]
            responses = [played.to_response() for played in episode]
            last_ids = [played.last_ids for played in episode]
        with self._callback.timer.timed(StepPhase.SCORING):
            scores = self._score(rows, responses)
        penalties = list(map(self._length_penalty, thoughts))
        names = [example_name(prompt.example) for prompt in asked]
        cut_off = [self._is_cut_off(ids) for ids in last_ids]
        own = [
            ScoredCompletion(*parts)
            for parts in zip(messages, raw, names, cut_off, scores, penalties, strict=True)
        ]
        gathered = self._context.process_group.all_gather(
            (own, self._context.environment.left_behind)
        )
        by_rank = [completions for completions, _ in gathered]
        of_all_ranks = list(chain.from_iterable(by_rank))
        check_left_behind([left_behind for _, left_behind in gathered])
        self._report_step(trainer_state.global_step + 1, of_all_ranks)
        begin = sum(map(len, by_rank[: self._context.process_group.rank]))
        self.learning = self._learning(of_all_ranks, slice(begin, begin + len(own)))
        return [completion.reward for completion in own]

    def _is_cut_off(self, last_ids: Sequence[int]) -> bool:
        """Return whether a completion is masked because one of its turns has no end."""
        return self._masks_cut_off and not all(token in self._end_token_ids for token in last_ids)

    def _learning(self, completions: Sequence[ScoredCompletion], own: slice) -> Learning:
        """Return how the ``own`` ones of all ranks' completions are learned."""
        size = self._context.run.train.group_size or 1
        outcomes = [completion.outcome for completion in completions]
        return Learning(
            advantages=advantages.group_advantages(outcomes, size)[own],
            learned=[outcome.learned for outcome in outcomes[own]],
            metrics=advantages.reward_metrics(outcomes, size),
        )

    def _score(self, rows: Sequence[int], responses: Sequence[Any]) -> list[rewards.Score]:
        """Score responses; ``rows[i]`` is the number of the prompt of ``responses[i]``."""
        environment = self._context.environment
        if self._context.process_group.world_size > 1 and rewards.scores_groups(environment):
            return self._score_whole_groups(rows, responses)
        examples = [self._prompts[row].example for row in rows]
        return rewards.score_responses(environment, examples, responses)

    def _score_whole_groups(
        self, rows: Sequence[int], responses: Sequence[Any]
    ) -> list[rewards.Score]:
        """Score groups whose completions may have been sampled by several ranks.

        All ranks gather all responses, and each rank scores every ``world_size``-th group. Returns
        the scores of this rank's own responses.
        """
        process_group, size = self._context.process_group, self._context.run.train.group_size or 1
        rank, world_size = process_group.rank, process_group.world_size
        by_rank = process_group.all_gather(list(zip(rows, responses, strict=True)))
        pairs = list(chain.from_iterable(by_rank))
        groups = [pairs[begin : begin + size] for begin in range(0, len(pairs), size)]
        to_score = list(chain.from_iterable(groups[rank::world_size]))
        examples = [self._prompts[row].example for row, _ in to_score]
        scored = rewards.score_responses(
            self._context.environment, examples, [response for _, response in to_score]
        )
        # Bring the scores back into the order of the responses.
        scores_of_rank = [iter(scores) for scores in process_group.all_gather(scored)]
        scores = [
            next(scores_of_rank[index % world_size])
            for index, group in enumerate(groups)
            for _ in group
        ]
        begin = sum(map(len, by_rank[:rank]))
        return scores[begin : begin + len(rows)]

    def _length_penalty(self, thoughts: Sequence[str]) -> float:
        """Return the penalty for the tokens of the first reasoning of every turn."""
        coefficient = self._context.run.train.thinking_length_penalty_coef
        if not coefficient or not self._context.run.thinking:
            return 0.0
        encoded = (self._tokenizer(thought, add_special_tokens=False) for thought in thoughts)
        return coefficient * sum(len(encoding["input_ids"]) for encoding in encoded)

    def _report_step(self, step: int, completions: Sequence[ScoredCompletion]) -> None:
        """Report the scores of a step; raises ``NothingJudgedError`` when no completion has one."""
        scores = [completion.score for completion in completions]
        if trace := rewards.first_traceback(scores):
            log.warning("a reward of step %d failed\n%s", step, trace)
        for name, value in rewards.dropped_metrics(scores).items():
            if name not in self._logged_metrics:
                self._logged_metrics.add(name)
                log.warning(
                    "the environment's metric %r is left out of step %d, and is not logged again: "
                    "%s is not a finite number",
                    *(name, step, value),
                )
        self._store_rollouts(step, completions)
        examples = [completion.example for completion in completions]
        rewards.raise_if_all_failed(scores, examples)
        train = self._context.run.train
        outcomes = [completion.outcome for completion in completions]
        wasted = self._wasted_steps.add_step(outcomes, train.group_size or 1, train.max_tokens or 0)
        failed = rewards.failure_warning(scores, step, examples)
        self._context.reporter.warn("; ".join(filter(None, (self._data_remark, failed, wasted))))
        self._callback.environment_metrics = rewards.mean_metrics(scores)
        learned = sum(outcome.learned for outcome in outcomes)
        self._callback.environment_metrics["completions/learned"] = float(learned)
        penalties = [item.penalty for item in completions if not item.score.error]
        if any(penalties):
            self._callback.environment_metrics["thinking_penalty"] = statistics.fmean(penalties)

    def _store_rollouts(self, step: int, completions: Sequence[ScoredCompletion]) -> None:
        rows = [
            {
                "step": step,
                "prompt": completion.prompt,
                "completion": completion.raw,
                "example": completion.example,
                **completion.result,
            }
            for completion in completions[:_STORED_ROLLOUTS]
        ]
        self._context.reporter.queue_rollouts(step, rows)
