"""Evaluations of a run on held-out examples: before training, while it trains, and at its end.

An evaluation changes nothing of what is learned. It draws random numbers of its own, restores the
state of every generator and the mode of every layer, and its environment is another object than
that of training.

All ranks take part, each with its share of the examples. What an evaluation costs is measured, and
``data.eval_budget`` decides on rank 0 how many examples the next one answers.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final

import torch

from flashrun.api import evaluation
from flashrun.api.bounds import fit_metrics
from flashrun.api.exits import Exit
from flashrun.api.reasons import Activity, Reason
from flashrun.api.records import STEP_SECONDS, CheckpointEvaluation, MetricsRow, ResolvedEval
from flashrun_trainer.context import TrainContext
from flashrun_trainer.data import eval_budget, eval_scores, rewards
from flashrun_trainer.data.calls import check_left_behind
from flashrun_trainer.data.dataset import check_same_examples, example_name
from flashrun_trainer.data.episode_player import EpisodePlayer
from flashrun_trainer.data.eval_budget import FEWEST_EXAMPLES, LARGEST_SHARE, TimeSpent
from flashrun_trainer.data.eval_scores import RowResult
from flashrun_trainer.data.held_out import HeldOut, HeldOutRow, longest_prompt, read_rows
from flashrun_trainer.data.labels import TokenizedExample
from flashrun_trainer.data.packing import IGNORE_INDEX
from flashrun_trainer.data.prompts import parse_answer
from flashrun_trainer.data.random_stream import RandomStream
from flashrun_trainer.data.reasoning import decode
from flashrun_trainer.data.rewards import Score
from flashrun_trainer.data.template_forms import template_form
from flashrun_trainer.model import end_token_ids
from flashrun_trainer.pod.trainer_errors import TrainerError
from flashrun_trainer.samplers import Sampler, TransformersSampler

log = logging.getLogger(__name__)

_LOSS_TOKENS: Final = 4096
"""Most tokens of one forward pass for the loss, padding included."""
_STORED_ANSWERS: Final = 256
"""Answers of an evaluation that are stored."""


@dataclass(frozen=True)
class Measured:
    """What the first examples of a run's first evaluation have cost on rank 0, in seconds."""

    answering: float = 0.0
    answers: int = 0
    """Number of answers of this rank."""
    forward: float = 0.0
    """Time for the loss of the examples' own answers."""
    tokens: int = 0
    """Tokens of these forward passes, on this rank."""


EstimateTraining = Callable[[Measured], float]
"""Estimates the seconds that all training steps will take."""


def read_held_out(context: TrainContext, tokenizer: Any) -> HeldOut | None:
    """Return the held-out examples as the model is asked them; None when there are none.

    Raises:
        TrainerError: the config names the split and no example of it can be used, or they differ
            between the processes.
    """
    run, split = context.run, context.held_out
    context.reporter.set_evaluation_warning(split.remark)
    if run.eval is None or split.environment is None:
        return None
    try:
        held_out = read_rows(split, run.eval, tokenizer, run)
    except TrainerError as error:
        if run.eval.required:
            raise
        context.reporter.set_evaluation_warning(f"the run is not evaluated: {error.message}")
        return None
    check_same_examples(context.process_group, (row.prompt.ids for row in held_out.rows))
    return held_out


def transformers_sampler(context: TrainContext, tokenizer: Any, model: Any) -> Sampler:
    """Return what samples answers with the model itself."""
    stops = context.run.train.stop_sequences or ()
    ends = end_token_ids(model, tokenizer)
    return TransformersSampler(model, tokenizer, ends, stops, context.sharded)


@dataclass
class Evaluator:
    """Evaluates one run."""

    context: TrainContext
    held_out: HeldOut
    tokenizer: Any
    model: Any
    sampler: Sampler
    estimate_training: EstimateTraining
    _checkpoints: dict[int, CheckpointEvaluation] = field(default_factory=dict)
    _history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """Steps of the metrics history, with what decides about evaluations."""

    def __post_init__(self) -> None:
        """Make the order of sizes, and let the status show what is wrong with the split."""
        assert self.context.run.eval is not None
        self.settings: ResolvedEval = self.context.run.eval
        self._most = min(self.settings.max_examples, len(self.held_out.rows))
        self._levels = (
            eval_budget.example_levels(self._most) if self.settings.may_shrink else [self._most]
        )
        self._warn("")

    def is_due(self, step: int, steps: int, *, saves: bool = False) -> bool:
        """Return whether the model after ``step`` of ``steps`` is evaluated.

        ``saves`` says whether a checkpoint of the step was asked for.
        """
        if step in (0, steps) or step % self._every == 0:
            return True
        return saves and self.settings.every is None

    @property
    def _every(self) -> int:
        return self.settings.every or self.context.run.train.save_every

    def of_checkpoint(self, step: int) -> CheckpointEvaluation | None:
        """Return what the manifest of a checkpoint says about its evaluation."""
        return self._checkpoints.get(step)

    def resume(self, step: int, steps: int, *, stopped: bool = False) -> None:
        """Evaluate the model with which an attempt begins, unless an earlier attempt has done it.

        It is due before training, and when a pod was ended during the evaluation: also in that of a
        save that somebody asked for (``stopped``).
        """
        if not (stopped or self.is_due(step, steps)):
            return
        done = dict(self._evaluations())
        if self.context.process_group.broadcast(step in done):
            if step in done:
                self._remember(step, eval_scores.metrics_of_row(done[step]))
            self._report()
        else:
            self.evaluate(step, steps)

    def _remember(self, step: int, measured: Mapping[str, float]) -> None:
        """Remember what the manifest of a checkpoint says."""
        metric = self.settings.metric
        if metric in measured:
            self._checkpoints[step] = CheckpointEvaluation(
                metric=metric, score=measured[metric], metrics=fit_metrics(measured)
            )

    def evaluate(self, step: int, steps: int) -> None:
        """Evaluate the model after ``step`` of ``steps``, unless the time is too short for it.

        Raises:
            TrainerError: the environment's scores do not have the metric of the config.
        """
        process_group = self.context.process_group
        self._read_history()
        spent = TimeSpent.from_history([values for _, values in self._history])
        left = sum(self.is_due(later, steps) for later in range(step + 1, steps + 1)) + 1
        examples = (
            eval_budget.affordable_examples(self._levels, spent, steps - step, left)
            if self.settings.may_shrink
            else self._most
        )
        examples, first = process_group.broadcast((examples, not spent.examples))
        if not examples:
            log.info("step %d is not evaluated: %s", step, _too_long(FEWEST_EXAMPLES))
            return
        self.context.reporter.set_activity(Activity.EVALUATING)
        began = time.monotonic()
        with self._undisturbed():
            results = self._first_results(left) if first else self._results(0, examples)
        self._record(step, results, time.monotonic() - began)
        self.context.reporter.set_activity(Activity.TRAINING)

    # --- what it measures -----------------------------------------------------------------------

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Evaluate inside the ``with`` block; afterwards training finds everything as before."""
        rank = self.context.process_group.rank
        modes = [(module, module.training) for module in self.model.modules()]
        stream = RandomStream()
        # The same numbers in each evaluation: their scores differ because of the model alone.
        stream.seed(self.context.run.seed, "evaluation", rank)
        self.held_out.environment.random.seed(self.context.run.seed, "evaluated", rank)
        with stream.in_use():
            self.model.eval()
            try:
                with self.sampler.ready():
                    yield
            finally:
                for module, mode in modes:
                    module.training = mode

    def _first_results(self, evaluations: int) -> list[RowResult]:
        """Evaluate a few examples, and then as many as the run has time for."""
        process_group = self.context.process_group
        most, fewest = self._levels[0], self._levels[-1]
        began = time.monotonic()
        measured: list[Measured] = []
        results = self._results(0, fewest, measured)
        seconds = time.monotonic() - began
        examples = eval_budget.baseline_examples(
            self._levels, seconds / fewest, self.estimate_training(measured[0]), evaluations
        )
        examples = process_group.broadcast(examples)
        if fewest < examples <= most:
            results += self._results(fewest, examples)
        return results

    def _results(
        self, begin: int, end: int, measured: list[Measured] | None = None
    ) -> list[RowResult]:
        """Return the results of the examples from ``begin`` to ``end``, on all ranks."""
        process_group = self.context.process_group
        rank, world_size = process_group.rank, process_group.world_size
        own = [self.held_out.rows[index] for index in range(begin + rank, end, world_size)]
        share = -(-(end - begin) // world_size)
        # Ranks that can only work together do it equally often; what they do beyond is dropped.
        spare = [self.held_out.rows[begin]] * (share - len(own)) if self._in_step else []
        began = time.monotonic()
        answered = self._answer([*own, *spare])[: len(own)]
        middle = time.monotonic()
        losses = self._losses([*own, *spare])[: len(own)]
        if measured is not None:
            measured.append(
                Measured(
                    middle - began,
                    len(own) * self.settings.samples,
                    time.monotonic() - middle,
                    sum(len(part.input_ids) for row in own for part in row.labelled),
                )
            )
        results = [
            RowResult(scores, answers, *loss)
            for (scores, answers), loss in zip(answered, losses, strict=True)
        ]
        gathered = process_group.all_gather((results, self.held_out.environment.left_behind))
        check_left_behind([left_behind for _, left_behind in gathered])
        by_rank = [results for results, _ in gathered]
        return [by_rank[index % world_size][index // world_size] for index in range(end - begin)]

    @property
    def _in_step(self) -> bool:
        """Whether ranks can only sample, or only call the environment, together."""
        return self.context.sharded or self.held_out.environment.takes_turns

    def _answer(
        self, rows: Sequence[HeldOutRow]
    ) -> list[tuple[tuple[Score, ...], tuple[str, ...]]]:
        """Let the model answer each row, and return the scores of its answers and their texts."""
        if not self.held_out.answers:
            return [((), ())] * len(rows)
        samples, run = self.settings.samples, self.context.run
        prompts = [row.prompt for row in rows for _ in range(samples)]
        environment = self.held_out.environment
        responses: Sequence[Any]
        if environment.is_multi_turn:
            player = EpisodePlayer(
                environment,
                self.tokenizer,
                run,
                longest=longest_prompt(environment, self.settings, run),
                sharded=self.context.sharded,
            )
            episodes = player.play(prompts, lambda _, ids: self._sample(ids))
            responses = [episode.to_response() for episode in episodes]
            form = template_form(self.tokenizer).reasoning
            texts = [decode(self.tokenizer, episode.completion_ids, form) for episode in episodes]
        else:
            sampled = self._sample([prompt.ids for prompt in prompts])
            answers = [
                parse_answer(self.tokenizer, run, ids, prompt.opens_reasoning)
                for prompt, ids in zip(prompts, sampled, strict=True)
            ]
            responses, texts = answers, [answer.raw for answer in answers]
        examples = [prompt.example for prompt in prompts]
        scores = rewards.score_responses(environment, examples, responses)
        groups = range(0, len(prompts), samples)
        return [
            (tuple(scores[begin : begin + samples]), tuple(texts[begin : begin + samples]))
            for begin in groups
        ]

    def _sample(self, prompts: list[list[int]]) -> list[list[int]]:
        if not prompts:
            return []
        most = self.context.run.train.max_length
        limits = [min(self.settings.max_tokens, most - len(ids)) for ids in prompts]
        temperature = self.settings.temperature if self.settings.samples > 1 else 0.0
        return self.sampler.sample(prompts, limits, temperature)

    def _losses(self, rows: Sequence[HeldOutRow]) -> list[tuple[float, int, int]]:
        """Return for each row's own answer its loss, its tokens, and how many are correct."""
        sums = [(0.0, 0, 0)] * len(rows)
        parts = [(index, part) for index, row in enumerate(rows) for part in row.labelled]
        if self.context.sharded:
            parts = self._equally_many(parts, beyond=len(rows))
        for batch in _batches(parts, 1 if self.context.sharded else _LOSS_TOKENS):
            counted = zip(batch, self._loss_of([part for _, part in batch]), strict=True)
            for (index, _), more in counted:
                if index < len(rows):
                    loss, tokens, correct = sums[index]
                    sums[index] = (loss + more[0], tokens + more[1], correct + more[2])
        return sums

    def _equally_many(
        self, parts: list[tuple[int, TokenizedExample]], beyond: int
    ) -> list[tuple[int, TokenizedExample]]:
        """Return the parts with others of a row ``beyond``: all ranks have equally many then."""
        most = max(self.context.process_group.all_gather(len(parts)))
        labelled = chain.from_iterable(row.labelled for row in self.held_out.rows)
        spare = next(labelled, None)
        return parts if spare is None else [*parts, *[(beyond, spare)] * (most - len(parts))]

    def _loss_of(self, parts: Sequence[TokenizedExample]) -> list[tuple[float, int, int]]:
        """Return sum of the loss, number of learned tokens and of correct ones for each example."""
        width = max(len(part.input_ids) for part in parts)
        pad = self.tokenizer.pad_token_id
        device = next(self.model.parameters()).device

        def padded(values: Sequence[int], filler: int) -> list[int]:
            return [*values, *[filler] * (width - len(values))]

        ids = torch.tensor([padded(part.input_ids, pad) for part in parts], device=device)
        mask = torch.tensor([padded([1] * len(part.input_ids), 0) for part in parts], device=device)
        labels = torch.tensor([padded(part.labels, IGNORE_INDEX) for part in parts], device=device)
        with torch.no_grad():
            logits = self.model(input_ids=ids, attention_mask=mask).logits
        sums = []
        for row, wanted in zip(logits[:, :-1], labels[:, 1:], strict=True):
            learned = wanted != IGNORE_INDEX
            own, wanted_own = row[learned].float(), wanted[learned]
            loss = torch.nn.functional.cross_entropy(own, wanted_own, reduction="sum")
            correct = (own.argmax(-1) == wanted_own).sum()
            sums.append((float(loss), int(learned.sum()), int(correct)))
        return sums

    # --- what it reports ------------------------------------------------------------------------

    def _record(self, step: int, results: Sequence[RowResult], seconds: float) -> None:
        """Put the results into the history, the heartbeat and the log."""
        metric, context = self.settings.metric, self.context
        measured = eval_scores.evaluation_metrics(results)
        self._check_metric(step, measured)
        keys = {evaluation.metric_key(name): value for name, value in measured.items()}
        keys[evaluation.metric_key(evaluation.SECONDS)] = seconds
        values = fit_metrics(keys | eval_scores.prefix_metrics(results, self._levels, metric))
        row = MetricsRow(
            step=step, attempt=context.attempt.number, time=datetime.now(UTC), values=values
        )
        context.reporter.append_metrics(row)
        context.tracker.log(step, values)
        self._remember(step, measured)
        self._store_answers(step, results)
        log.info("%s", _in_words(step, metric, measured, seconds))
        failed = [score for result in results for score in result.scores if score.error]
        if failed:
            log.warning(
                "%d answers of the evaluation after step %d have no score: %s\n%s",
                *(len(failed), step, failed[0].error, failed[0].trace),
            )
        self._report(failed[0].error if failed else "")
        context.reporter.upload_metrics_soon()

    def _check_metric(self, step: int, measured: dict[str, float]) -> None:
        """Check after the first evaluation that the config's metric exists."""
        metric = self.settings.metric
        if step > 0 or metric in measured or evaluation.SCORE not in measured:
            return
        own = sorted(measured.keys() - evaluation.COUNTS)
        raise TrainerError(
            Exit.CONFIG,
            Reason.EVAL_METRIC_MISSING,
            f"eval.metric is {metric!r}, and the evaluation has only {', '.join(own)}",
            "set eval.metric to one of these",
        )

    def _read_history(self) -> None:
        """Read what is new in the metrics history; ranks above 0 have none."""
        for row in self.context.reporter.read_new_rows():
            needed = {
                name: value
                for name, value in row.values.items()
                if name == STEP_SECONDS or name.startswith(evaluation.metric_key(""))
            }
            self._history.append((row.step, needed))

    def _evaluations(self) -> list[tuple[int, dict[str, float]]]:
        self._read_history()
        examples = evaluation.metric_key(evaluation.EXAMPLES)
        return [(step, values) for step, values in self._history if examples in values]

    def _report(self, failure: str = "") -> None:
        """Show in the heartbeat how the evaluations compare, and what is wrong with them."""
        rows = self._evaluations()
        if not rows:
            return
        settings = self.settings
        compared = eval_scores.compare_evaluations(settings.metric, settings.samples, rows)
        self.context.reporter.set_evaluation(compared)
        unscored = (
            f"{compared.unscored} answers of the last evaluation have no score: {failure}"
            if failure
            else ""
        )
        lowered = _too_long(self._most, compared.examples) if compared.examples < self._most else ""
        self._warn("; ".join(filter(None, (unscored, lowered))))

    def _warn(self, sentence: str) -> None:
        remarks = (self.held_out.remark, sentence)
        self.context.reporter.set_evaluation_warning("; ".join(filter(None, remarks)))

    def _store_answers(self, step: int, results: Sequence[RowResult]) -> None:
        rows = [
            {
                "step": step,
                "prompt": row.prompt.messages,
                "completion": text,
                "example": example_name(row.prompt.example),
                "score": None if score.error else score.reward,
                "metrics": score.metrics,
                **({"error": score.error} if score.error else {}),
            }
            for row, result in zip(self.held_out.rows, results, strict=False)
            for score, text in zip(result.scores, result.answers, strict=True)
        ]
        if rows:
            self.context.reporter.queue_rollouts(step, rows[:_STORED_ANSWERS], evaluated=True)


def _batches(
    parts: Sequence[tuple[int, TokenizedExample]], tokens: int
) -> Iterator[list[tuple[int, TokenizedExample]]]:
    """Yield batches of at most ``tokens`` tokens, padding included; a longer example is alone."""
    batch: list[tuple[int, TokenizedExample]] = []
    for part in parts:
        longest = max(len(example.input_ids) for _, example in [*batch, part])
        if batch and longest * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch


def _too_long(most: int, examples: int | None = None) -> str:
    """Return why an evaluation is left out, or answers only ``examples`` of ``most``."""
    limit = f"{LARGEST_SHARE:.0%} of the run's time"
    if examples is None:
        return f"{most} examples would take evaluations beyond {limit}"
    return (
        f"evaluations answer {examples} of {most} examples, because more would take over {limit}: "
        "set eval.max_examples to fix their number"
    )


def _in_words(step: int, metric: str, measured: dict[str, float], seconds: float) -> str:
    shown = {metric, evaluation.SCORE, *evaluation.SFT_METRICS} & measured.keys()
    values = "  ".join(f"{name} {measured[name]:.4g}" for name in sorted(shown))
    examples = int(measured[evaluation.EXAMPLES])
    return f"evaluation after step {step}  {values}  ({examples} examples, {seconds:.1f} s)"
