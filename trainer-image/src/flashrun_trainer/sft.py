"""SFT: learn by imitating the completions that the environment provides."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import Batching, ResolvedRun
from flashrun_trainer import loop, model, trl_arguments
from flashrun_trainer.context import Session
from flashrun_trainer.data import packing
from flashrun_trainer.data.chat_template import Row, row_of, truncated
from flashrun_trainer.data.environment import (
    MESSAGES_HINT,
    Environment,
    Message,
    almost_messages,
    naming,
    reasons,
    row_name,
    says_something,
)
from flashrun_trainer.data.packing import IGNORED
from flashrun_trainer.pod.trainer_errors import TrainerError

log = logging.getLogger(__name__)

_MANY: Final = 0.05
"""Share of the examples from which on a warning is not only for the log."""
_WEIGHED: Final = ("entropy", "mean_token_accuracy")


class Conversation(NamedTuple):
    """One example: what is asked, and what the assistant shall say and do."""

    prompt: list[Message]
    completion: list[Message]
    name: str
    """How people count it."""


def train(session: Session) -> Path | None:
    """Train, and return the folder of the final adapter; None when interrupted."""
    run, machine = session.run, session.machine
    link = loop.Link(session)
    tokenizer = model.load_tokenizer(session.pod.model_folder(run))
    pairs = conversations(session.environment, run)
    rows = training_rows(pairs, tokenizer, run)
    session.reporter.warn("; ".join(filter(None, warnings_of(pairs, rows, run))))
    loop.same_everywhere(session.ranks, (row.input_ids for row in rows))

    network, adapter = loop.policy(session)
    lengths = [len(row.input_ids) for row in rows]
    layout = model.packing_layout(network)
    plan = packing.plan(
        run, lengths, layout, trl_arguments.most_tokens(machine), machine.world_size
    )
    log.info("%s", packing.said(plan))
    session.reporter.batching(
        Batching(
            world_size=machine.world_size,
            micro_batch_size=plan.at_once,
            gradient_accumulation_steps=plan.passes,
        )
    )
    output = session.pod.work / "checkpoints"
    link.tokens_of = plan.tokens_until
    link.epochs_of = plan.steps.epochs_until
    trainer = Trainer(
        model=network,
        peft_config=LoraConfig(**adapter) if adapter else None,
        args=SFTConfig(**trl_arguments.sft(run, machine, output, plan.passes, len(plan.steps))),
        train_dataset=Dataset.from_dict({"pass": range(plan.size * len(plan.steps))}),
        data_collator=packing.Collator(plan, rows, tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[link],
    )
    return loop.drive(trainer, link, session)


class Trainer(loop.WithoutCards, SFTTrainer):
    """TRL's trainer with a warm-up that begins above 0, and means that count every token once."""

    def __init__(self, **settings: Any) -> None:
        self._learned: list[int] = []
        """Tokens that were learned from each pass of the step that is under way."""
        super().__init__(**settings)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Leave out the rate of 0 that the schedule begins with: a step would learn nothing."""
        if self.lr_scheduler is not None:
            return self.lr_scheduler
        schedule = super().create_scheduler(num_training_steps + 1, optimizer)
        with warnings.catch_warnings():
            # PyTorch misses the optimizer's step that would come before.
            warnings.simplefilter("ignore", UserWarning)
            schedule.step()
        return schedule

    def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **kept: Any) -> Any:
        """Note how many tokens are learned from the pass, by all processes."""
        learned = (inputs["labels"] != IGNORED).sum()
        self._learned.append(int(self.accelerator.gather_for_metrics(learned).sum()))
        return super().compute_loss(model, inputs, *more, **kept)

    def log(self, logs: dict[str, float], *more: Any) -> None:
        """Weigh the means of the passes by what was learned from each: TRL takes all alike."""
        weights, self._learned = self._learned, []
        for name in _WEIGHED:
            means = self._metrics["train"].get(name)
            if means and sum(weights):
                sums = (mean * weight for mean, weight in zip(means, weights, strict=True))
                self._metrics["train"][name] = [sum(sums) / sum(weights)]
        super().log(logs, *more)


def conversations(environment: Environment, run: ResolvedRun) -> list[Conversation]:
    """Return prompt and completion of the examples, without those that have no output.

    Raises:
        TrainerError: the environment fails, or no example has an output.
    """
    examples = environment.examples[: run.train.max_examples or None]
    found = [
        Conversation(
            environment.prompt(example), environment.completion(example), row_name(example)
        )
        for example in examples
    ]
    almost = [
        pair for pair, example in zip(found, examples, strict=True) if _as_json(pair, example)
    ]
    if almost:
        log.warning(
            "%d of %d outputs look like conversations, and are learned as the text of their JSON, "
            "the first in %s: %s",
            *(len(almost), len(found), almost[0].name, MESSAGES_HINT),
        )
    kept = [pair for pair in found if any(map(says_something, pair.completion))]
    if len(kept) < len(found):
        log.warning("%d of %d examples have no output: dropped", len(found) - len(kept), len(found))
    if not kept:
        raise TrainerError(
            Exit.DATA,
            Reason.NOTHING_TO_LEARN,
            f"not one of {len(found)} examples has an output",
            "SFT imitates outputs: add them to the rows of the dataset",
        )
    return kept


def training_rows(pairs: Sequence[Conversation], tokenizer: Any, run: ResolvedRun) -> list[Row]:
    """Render conversations and drop those without anything to learn, saying how many.

    Raises:
        TrainerError: nothing is left.
    """
    rows = []
    for pair in pairs:
        with naming(pair.name):
            row = row_of(tokenizer, pair.prompt, pair.completion, run.thinking)
        rows.append(truncated(row, run.train.max_length))
    kept = [row for row in rows if any(label != IGNORED for label in row.labels)]
    if len(kept) < len(rows):
        log.warning(
            "%d of %d examples were dropped: nothing of their completion is left within "
            "max_length = %d tokens",
            *(len(rows) - len(kept), len(rows), run.train.max_length),
        )
    if not kept:
        raise TrainerError(
            Exit.DATA,
            Reason.NOTHING_TO_LEARN,
            f"not one of {len(rows)} examples has a completion within max_length = "
            f"{run.train.max_length} tokens",
            "raise train.max_length, or shorten the prompts",
        )
    return kept


def warnings_of(
    pairs: Sequence[Conversation], rows: Sequence[Row], run: ResolvedRun
) -> tuple[str, ...]:
    """Return what should be known while the run trains; of a few cut rows only the log speaks."""
    cut = cut_short(rows, run)
    if cut and sum(row.cut for row in rows) <= _MANY * len(rows):
        log.warning("%s", cut)
        cut = ""
    return reasoning_mismatch(pairs, run.thinking), cut


def cut_short(rows: Sequence[Row], run: ResolvedRun) -> str:
    """Return a sentence about completions that have lost their end, or an empty string."""
    cut = sum(row.cut for row in rows)
    if not cut:
        return ""
    return (
        f"{cut} of {len(rows)} examples have lost the end of their completion to max_length = "
        f"{run.train.max_length} tokens, and do not teach when to stop: raise train.max_length"
    )


def reasoning_mismatch(pairs: Sequence[Conversation], thinking: bool) -> str:
    """Return a sentence when the run shall reason and its outputs do not, or the other way round.

    In both cases what is learned follows another opening than what is asked for later.
    """
    targets = [any(map(reasons, pair.completion)) for pair in pairs]
    if thinking and not any(targets):
        return (
            "thinking is on, but no output has reasoning between <think> and </think>, so the "
            "model learns to answer without it: add reasoning to the outputs, or set thinking = "
            "false"
        )
    if not thinking and any(targets):
        return (
            f"thinking is off, but {sum(targets)} of {len(targets)} outputs reason between <think> "
            "and </think>, which the model is never asked for: set thinking = true, or leave the "
            "reasoning out"
        )
    return ""


def _as_json(pair: Conversation, example: Any) -> bool:
    alone = len(pair.completion) == 1 and pair.completion[0]["content"].startswith(("{", "["))
    return alone and almost_messages(example.output)
