"""SFT, supervised fine-tuning: learn to imitate the outputs that the environment provides.

``train`` is the whole method, top to bottom: conversations from the environment, token ids with
labels, micro-batches, model with adapter, TRL's loop.
"""

import logging
import warnings
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, Final

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedRun
from flashrun_trainer import evaluator, loop, model, row_layout, trl_arguments
from flashrun_trainer.context import TrainContext
from flashrun_trainer.data import packing
from flashrun_trainer.data.conversations import Conversation
from flashrun_trainer.data.dataset import check_same_examples
from flashrun_trainer.data.environment import Environment, naming_example
from flashrun_trainer.data.labels import TokenizedExample, tokenize_conversation, truncate_row
from flashrun_trainer.data.messages import has_reasoning, is_learnable
from flashrun_trainer.data.packing import IGNORE_INDEX
from flashrun_trainer.data.template_forms import (
    TemplateForm,
    template_form,
    unwritten_remark,
)
from flashrun_trainer.data.unread_keys import json_remark, unread_remark
from flashrun_trainer.evaluator import Evaluator, Measured
from flashrun_trainer.pod.trainer_errors import TrainerError

log = logging.getLogger(__name__)

_MANY_CUT: Final = 0.05
"""Share of cut examples from which on the warning is also shown in the status."""
_TOKEN_MEANS: Final = ("entropy", "mean_token_accuracy")
"""TRL's metrics that are means over the tokens of a micro-batch."""


def train(context: TrainContext) -> Path | None:
    """Train, and return the folder of the final adapter; None on ranks above 0."""
    run, machine = context.run, context.machine
    callback = loop.TrainingCallback(context)

    # Data first: it is cheap, and most mistakes of a config are found here.
    tokenizer = model.load_tokenizer(context.pod.model_folder(run), run.prompt_date)
    conversations = load_conversations(context.environment, run)
    rows = tokenize_conversations(conversations, tokenizer, run)
    remarks = (
        context.environment.row_remark,
        unread_remark(conversations, str(tokenizer.chat_template)),
        unwritten_remark(tokenizer, conversations),
        json_remark(conversations),
        *data_warnings(conversations, rows, run, template_form(tokenizer)),
    )
    context.reporter.warn("; ".join(filter(None, remarks)))
    examples = list(chain.from_iterable(rows))
    check_same_examples(context.process_group, (example.input_ids for example in examples))
    held_out = evaluator.read_held_out(context, tokenizer)

    # Whether examples may share a row depends on the model's layers.
    network, lora_arguments = loop.load_policy(context)
    choice = row_layout.choose_layout(network, context.process_group)
    plan = packing.make_plan(
        run,
        lengths=[len(example.input_ids) for example in examples],
        layout=choice.layout,
        layout_reason=choice.reason,
        most_tokens=trl_arguments.most_micro_batch_tokens(machine),
        world_size=machine.world_size,
        rows=number_examples(rows),
    )
    log.info("%s", packing.describe(plan))
    context.reporter.set_batching(plan.batching)
    callback.tokens_until = plan.tokens_until
    callback.epochs_until = plan.batches.epochs_until

    # TRL's dataset holds only the numbers of the micro-batches. The collator looks up their
    # examples, so TRL can neither reorder nor regroup them.
    steps = len(plan.batches)
    arguments = trl_arguments.sft(
        run,
        machine,
        context.pod.work / "checkpoints",
        plan.gradient_accumulation_steps,
        steps,
    )
    trainer = SftTrainer(
        model=network,
        peft_config=LoraConfig(**lora_arguments) if lora_arguments else None,
        args=SFTConfig(**arguments),
        train_dataset=Dataset.from_dict(
            {"micro_batch": range(plan.micro_batches_per_step * steps)}
        ),
        data_collator=packing.Collator(plan, examples, tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[callback],
    )
    if held_out is not None:
        callback.evaluator = Evaluator(
            context,
            held_out,
            tokenizer,
            trainer.model,
            evaluator.transformers_sampler(context, tokenizer, trainer.model),
            lambda measured: _estimate_training(measured, plan.tokens_until(steps), machine),
        )
    return loop.run_training(trainer, callback, context)


def _estimate_training(measured: Measured, tokens: int, machine: trl_arguments.Machine) -> float:
    """Return how long training on so many tokens takes: backward is twice as long as forward."""
    if not measured.tokens:
        return 0.0
    return 3 * measured.forward / measured.tokens * tokens / machine.world_size


class SftTrainer(loop.OwnRecords, SFTTrainer):
    """TRL's trainer, with a warm-up that starts above 0 and means that weigh every token alike."""

    def __init__(self, **arguments: Any) -> None:
        self._learned_tokens: list[int] = []
        """Tokens with a label in each micro-batch of the current step, over all processes."""
        super().__init__(**arguments)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Skip the learning rate of 0 with which the schedule starts: that step learns nothing."""
        if self.lr_scheduler is not None:
            return self.lr_scheduler
        schedule = super().create_scheduler(num_training_steps + 1, optimizer)
        with warnings.catch_warnings():
            # PyTorch warns that the optimizer has not stepped before the schedule.
            warnings.simplefilter("ignore", UserWarning)
            schedule.step()
        return schedule

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Count the tokens that are learned from the micro-batch, over all processes."""
        tokens = (inputs["labels"] != IGNORE_INDEX).sum()
        self._learned_tokens.append(int(self.accelerator.gather_for_metrics(tokens).sum()))
        return super().compute_loss(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any) -> None:
        """Weight the means of micro-batches by their learned tokens; TRL averages them equally."""
        weights, self._learned_tokens = self._learned_tokens, []
        for name in _TOKEN_MEANS:
            means = self._metrics["train"].get(name)
            if means and sum(weights):
                products = (mean * weight for mean, weight in zip(means, weights, strict=True))
                self._metrics["train"][name] = [sum(products) / sum(weights)]
        super().log(logs, *args)


def load_conversations(environment: Environment, run: ResolvedRun) -> list[Conversation]:
    """Return prompt and completion of the examples, without those that have no output.

    Raises:
        TrainerError: the environment fails, or no example has an output.
    """
    examples = environment.examples[: run.train.max_examples or None]
    conversations = [environment.conversation(example) for example in examples]
    learnable = [item for item in conversations if any(map(is_learnable, item.completion))]
    if len(learnable) < len(conversations):
        dropped = len(conversations) - len(learnable)
        log.warning("%d of %d examples have no output: dropped", dropped, len(conversations))
    if not learnable:
        raise TrainerError(
            Exit.DATA,
            Reason.NOTHING_TO_LEARN,
            f"none of the {len(conversations)} examples has an output",
            "add outputs to the rows of the dataset: SFT imitates them",
        )
    return learnable


def tokenize_conversations(
    conversations: Sequence[Conversation], tokenizer: Any, run: ResolvedRun
) -> list[list[TokenizedExample]]:
    """Return each conversation as its examples, of at most ``max_length`` tokens.

    Examples of which nothing is learned within ``max_length`` are dropped, and rows without any
    example left. The log says how many.

    Raises:
        TrainerError: all rows are dropped, or a conversation cannot be rendered.
    """
    rows: list[list[TokenizedExample]] = []
    for conversation in conversations:
        with naming_example(conversation.name):
            whole = tokenize_conversation(
                tokenizer,
                conversation.prompt,
                conversation.completion,
                run.thinking,
                conversation.tools,
            )
        rows.append(truncate_row(whole, run.train.max_length))
    learnable = [row for row in rows if row]
    if len(learnable) < len(rows):
        log.warning(
            "%d of %d examples were dropped: nothing of their completion is left within "
            "max_length = %d tokens",
            *(len(rows) - len(learnable), len(rows), run.train.max_length),
        )
    if not learnable:
        raise TrainerError(
            Exit.DATA,
            Reason.NOTHING_TO_LEARN,
            f"none of the {len(rows)} examples has a completion within max_length = "
            f"{run.train.max_length} tokens",
            "raise train.max_length, or shorten the prompts",
        )
    return learnable


def number_examples(rows: Sequence[Sequence[TokenizedExample]]) -> list[range]:
    """Return for each row the numbers of its examples, in a list of all examples."""
    ends = accumulate(map(len, rows), initial=0)
    return [range(begin, end) for begin, end in pairwise(ends)]


def data_warnings(
    conversations: Sequence[Conversation],
    rows: Sequence[Sequence[TokenizedExample]],
    run: ResolvedRun,
    form: TemplateForm,
) -> tuple[str, ...]:
    """Return warnings for the status of the run; a few cut rows are only logged."""
    cut = truncation_warning(rows, run)
    if cut and sum(map(is_cut, rows)) <= _MANY_CUT * len(rows):
        log.warning("%s", cut)
        cut = ""
    return reasoning_warning(conversations, run.thinking, form), cut


def is_cut(row: Sequence[TokenizedExample]) -> bool:
    """Return whether a row has lost tokens that should be learned."""
    return any(example.cut for example in row)


def truncation_warning(rows: Sequence[Sequence[TokenizedExample]], run: ResolvedRun) -> str:
    """Return a warning about completions that have lost their end, or an empty string."""
    cut = sum(map(is_cut, rows))
    if not cut:
        return ""
    return (
        f"{cut} of {len(rows)} examples have lost the end of their completion to max_length = "
        f"{run.train.max_length} tokens, and do not teach when to stop: raise train.max_length"
    )


def reasoning_warning(
    conversations: Sequence[Conversation], thinking: bool, form: TemplateForm
) -> str:
    """Return a warning when ``thinking`` and the outputs do not match, or an empty string.

    If they do not match, what is learned follows another opening than what is asked for later.
    """
    tags = form.reasoning
    reasoned = [
        any(has_reasoning(message, tags) for message in item.completion) for item in conversations
    ]
    if thinking and not any(reasoned):
        return (
            "thinking is on, but no output has reasoning, as reasoning_content or between "
            f"{tags.start} and {tags.end}, so the model learns to answer without it: add reasoning "
            "to the outputs, or set thinking = false"
        )
    # A model with a channel for reasoning may use it whatever the key thinking is.
    is_asked = thinking or (tags.is_channel and not form.is_switched)
    if not is_asked and any(reasoned):
        return (
            f"thinking is off, but {sum(reasoned)} of {len(reasoned)} outputs have reasoning, "
            "which the model is never asked for: set thinking = true, or remove the reasoning"
        )
    return ""
