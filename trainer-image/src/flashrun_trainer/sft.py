"""SFT: learn by imitating the completions that the environment provides.

Every row is rendered with the model's chat template here, to token ids and labels. The loss is on
what the assistant says in the completion; prompt, user and tool messages are context.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from flashrun.spec.outcome import Exit
from flashrun.spec.records import Batching, ResolvedRun
from flashrun_trainer import arguments, loop, model, packing
from flashrun_trainer.environment import Environment, Message, shown
from flashrun_trainer.failures import TrainerError, sentence
from flashrun_trainer.packing import IGNORED
from flashrun_trainer.session import Session

log = logging.getLogger(__name__)


class Conversation(NamedTuple):
    """One example: what is asked, and what the assistant shall say and do."""

    prompt: list[Message]
    completion: list[Message]


class Row(NamedTuple):
    """One example as token ids, with the ids to learn as labels."""

    input_ids: list[int]
    labels: list[int]


def train(session: Session) -> Path | None:
    """Train, and return the folder of the final adapter; None when interrupted."""
    run, machine = session.run, session.machine
    link = loop.Link(session)
    tokenizer = model.load_tokenizer(session.pod.model_folder(run))
    pairs = conversations(session.environment, run)
    session.reporter.warn(without_reasoning(pairs, run.thinking))
    rows = training_rows(pairs, tokenizer, run)

    network, adapter = loop.policy(session)
    lengths = [len(row.input_ids) for row in rows]
    layout = model.packing_layout(network)
    plan = packing.plan(run, lengths, layout, arguments.most_tokens(machine), machine.processes)
    log.info("%s", packing.said(plan))
    session.reporter.batching(
        Batching(processes=machine.processes, per_device=plan.at_once, accumulation=plan.passes)
    )
    output = session.pod.work / "checkpoints"
    link.tokens_of = plan.tokens_until
    trainer = SFTTrainer(
        model=network,
        peft_config=LoraConfig(**adapter) if adapter else None,
        args=SFTConfig(**arguments.sft(run, machine, output, plan.passes, len(plan.steps))),
        train_dataset=Dataset.from_dict({"pass": range(plan.size * len(plan.steps))}),
        data_collator=packing.Collator(plan, rows, tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[link],
    )
    return loop.drive(trainer, link, session)


def conversations(environment: Environment, run: ResolvedRun) -> list[Conversation]:
    """Return prompt and completion of the examples, without those that have no output."""
    examples = environment.examples[: run.train.max_examples or None]
    found = [
        Conversation(environment.prompt(example), environment.completion(example))
        for example in examples
    ]
    kept = [pair for pair in found if any(map(_says_something, pair.completion))]
    if len(kept) < len(found):
        log.warning("%d of %d examples have no output: dropped", len(found) - len(kept), len(found))
    if not kept:
        raise TrainerError(
            Exit.DATA,
            "NothingToLearn",
            f"not one of {len(found)} examples has an output",
            "SFT imitates outputs: add them to the rows of the dataset",
        )
    return kept


def training_rows(pairs: Sequence[Conversation], tokenizer: Any, run: ResolvedRun) -> list[Row]:
    """Render conversations and drop those without anything to learn, saying how many.

    Raises:
        TrainerError: nothing is left.
    """
    rows = [render(tokenizer, pair.prompt, pair.completion, run.thinking) for pair in pairs]
    cut = [shortened(row, run.train.max_length) for row in rows]
    kept = [row for row in cut if any(label != IGNORED for label in row.labels)]
    _say_what_was_cut(rows, kept, run)
    if not kept:
        raise TrainerError(
            Exit.DATA,
            "NothingToLearn",
            f"not one of {len(rows)} examples has a completion within max_length = "
            f"{run.train.max_length} tokens",
            "raise train.max_length, or shorten the prompts",
        )
    return kept


def without_reasoning(pairs: Sequence[Conversation], thinking: bool) -> str:
    """Return a sentence when the run should reason and its examples do not, else nothing."""
    targets = (message for pair in pairs for message in pair.completion)
    if not thinking or any(_reasons(message) for message in targets):
        return ""
    return (
        "thinking is on, but no output has reasoning between <think> and </think>, so the model "
        "learns to answer without it: add reasoning to the outputs, or set thinking = false"
    )


def _says_something(message: Message) -> bool:
    return message["role"] == "assistant" and bool(
        message["content"] or message.get("tool_calls") or message.get("reasoning_content")
    )


def _reasons(message: Message) -> bool:
    return message["role"] == "assistant" and bool(
        "<think>" in message["content"] or message.get("reasoning_content")
    )


def _say_what_was_cut(rows: list[Row], kept: list[Row], run: ResolvedRun) -> None:
    longer = sum(len(row.input_ids) > run.train.max_length for row in rows)
    if longer:
        log.warning(
            "%d of %d examples are longer than max_length = %d tokens: %d were dropped, because "
            "nothing of their completion was left",
            *(longer, len(rows), run.train.max_length, len(rows) - len(kept)),
        )


def render(tokenizer: Any, prompt: list[Message], completion: list[Message], thinking: bool) -> Row:
    """Return the whole conversation as token ids, with the assistant's part of it as labels.

    A turn begins behind what the template writes to ask for an answer. What that holds, such as an
    empty pair of think tags, is not learned; nor is what comes behind the end-of-turn token, which
    ends generation.
    """
    messages = [*prompt, *completion]
    whole = rendered(tokenizer, messages, thinking, answer=False)
    asked = rendered(tokenizer, prompt, thinking, answer=True)
    if len(completion) == 1:
        turns = [(common_length(asked, whole), _end(tokenizer, whole))]
    else:
        unasked = rendered(tokenizer, prompt, thinking, answer=False)
        opening = asked[common_length(unasked, asked) :]
        turns = [
            _turn(tokenizer, messages, index, whole, opening, thinking)
            for index in range(len(prompt), len(messages))
            if messages[index]["role"] == "assistant"
        ]
    labels = [IGNORED] * len(whole)
    for begin, end in turns:
        labels[begin:end] = whole[begin:end]
    return Row(whole, labels)


def _turn(
    tokenizer: Any,
    messages: list[Message],
    index: int,
    whole: list[int],
    opening: list[int],
    thinking: bool,
) -> tuple[int, int]:
    """Return where the assistant's turn ``index`` begins and ends, its end-of-turn token included.

    Templates render a turn in the middle otherwise than at the end, with all turns before it, so
    the conversation up to the turn says nothing about its place. What stays the same when the
    assistant says something else there is what comes before and after.
    """
    said = str(messages[index].get("content") or "").strip()
    other = next(mark for mark in "#%@" if not said.startswith(mark) and not said.endswith(mark))
    changed = [*messages[:index], {"role": "assistant", "content": other}, *messages[index + 1 :]]
    variant = rendered(tokenizer, changed, thinking, answer=False)
    parted = common_length(whole, variant)
    backwards = range(parted - 1, -1, -1)
    opened = next((at for at in backwards if whole[at : at + 1] == opening[:1]), parted)
    begin = opened + common_length(opening, whole[opened:])
    if index + 1 == len(messages):
        return begin, _end(tokenizer, whole)
    end = len(whole) - common_length(whole[::-1], variant[::-1])
    return begin, end + 1 if whole[end] == tokenizer.eos_token_id else end


def _end(tokenizer: Any, whole: list[int]) -> int:
    """Return where a last turn ends: behind the last end-of-turn token."""
    eos = tokenizer.eos_token_id
    return len(whole) - next((i for i, token in enumerate(whole[::-1]) if token == eos), 0)


def rendered(
    tokenizer: Any, messages: Sequence[Message], thinking: bool, answer: bool
) -> list[int]:
    """Return messages as token ids; ``answer`` appends the opening of the assistant's turn.

    Raises:
        TrainerError: the template refuses the messages.
    """
    try:
        ids: list[int] = tokenizer.apply_chat_template(
            list(messages),
            tokenize=True,
            return_dict=False,
            add_generation_prompt=answer,
            # Always said: templates differ in what they assume.
            enable_thinking=thinking,
        )
    except Exception as error:
        # A template is a program; whatever it raises, it is these messages that it cannot render.
        raise TrainerError(
            Exit.DATA,
            "TemplateRefused",
            f"the model's chat template refuses messages that end with {shown(messages[-1])}: "
            f"{sentence(error)}",
            "change the messages that the environment builds",
        ) from error
    return ids


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common at their beginning."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def shortened(row: Row, length: int) -> Row:
    """Cut a row to ``length`` tokens, from the end."""
    return Row(row.input_ids[:length], row.labels[:length])
