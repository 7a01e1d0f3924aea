"""SFT: learn by imitating the completions that the environment provides.

Every row is rendered with the model's chat template here, to token ids and labels. The loss is on
what the assistant says in the completion; prompt, user and tool messages are context.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from flashrun.spec.outcome import Exit
from flashrun.spec.records import ResolvedRun
from flashrun_trainer import arguments, loop, model
from flashrun_trainer.environment import Environment, Message, blamed
from flashrun_trainer.failures import TrainerError
from flashrun_trainer.session import Session

log = logging.getLogger(__name__)

IGNORED: Final = -100
"""Label of a token that is not learned."""


class Row(NamedTuple):
    """One example as token ids, with the ids to learn as labels."""

    input_ids: list[int]
    labels: list[int]


def train(session: Session) -> Path | None:
    """Train, and return the folder of the final adapter; None when interrupted."""
    run = session.run
    tokenizer = model.load_tokenizer(session.pod.model_folder(run))
    rows = list(training_rows(session.environment, tokenizer, run))
    dataset = Dataset.from_list([row._asdict() for row in rows])

    network, adapter = loop.policy(session)
    output = session.pod.work / "checkpoints"
    link = loop.Link(session)
    trainer = SFTTrainer(
        model=network,
        peft_config=LoraConfig(**adapter) if adapter else None,
        args=SFTConfig(**arguments.sft(run, session.machine, output, len(rows))),
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[link],
    )
    return loop.drive(trainer, link, session)


def training_rows(environment: Environment, tokenizer: Any, run: ResolvedRun) -> Iterable[Row]:
    """Render the examples and drop those without anything to learn, saying how many.

    Raises:
        TrainerError: nothing is left.
    """
    examples = environment.examples[: run.train.max_examples or None]
    rows = []
    for example in examples:
        with blamed("building a training example"):
            prompt, completion = environment.prompt(example), environment.completion(example)
        if any(message.get("content") or message.get("tool_calls") for message in completion):
            rows.append(render(tokenizer, prompt, completion, run.thinking))
    if len(rows) < len(examples):
        log.warning(
            "%d of %d examples have no output: dropped", *(len(examples) - len(rows), len(examples))
        )
    cut = [shortened(row, run.train.max_length) for row in rows]
    kept = [row for row in cut if any(label != IGNORED for label in row.labels)]
    _say_what_was_cut(rows, kept, run)
    if not kept:
        raise TrainerError(
            Exit.DATA,
            "NothingToLearn",
            f"not one of {len(examples)} examples has a completion within max_length = "
            f"{run.train.max_length} tokens",
            "raise train.max_length, or check that the rows have an output",
        )
    return kept


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

    A turn begins where the conversation up to it, with the opening of an answer appended, parts
    from the whole. What the opening holds, such as an empty pair of think tags, is not learned.
    """
    messages = [*prompt, *completion]
    whole = rendered(tokenizer, messages, thinking, answer=False)
    labels = [IGNORED] * len(whole)
    for index in range(len(prompt), len(messages)):
        if messages[index].get("role") == "assistant":
            opening = rendered(tokenizer, messages[:index], thinking, answer=True)
            begin = common_length(opening, whole)
            end = _end_of_turn(tokenizer, messages, index, whole, thinking)
            labels[begin:end] = whole[begin:end]
    return Row(whole, labels)


def _end_of_turn(
    tokenizer: Any, messages: list[Message], index: int, whole: list[int], thinking: bool
) -> int:
    """Return where the assistant's turn ``index`` ends, its end-of-turn token included.

    What comes after a turn is what stays the same when the assistant says something else there;
    templates render a turn in the middle otherwise than at the end, so comparing beginnings is
    not enough.
    """
    if index + 1 == len(messages):
        return len(whole)
    said = str(messages[index].get("content") or "")
    other = next(mark for mark in "#%@" if not said.startswith(mark) and not said.endswith(mark))
    changed = [*messages[:index], {"role": "assistant", "content": other}, *messages[index + 1 :]]
    variant = rendered(tokenizer, changed, thinking, answer=False)
    end = len(whole) - common_length(whole[::-1], variant[::-1])
    return end + 1 if whole[end] == tokenizer.eos_token_id else end


def rendered(
    tokenizer: Any, messages: Sequence[Message], thinking: bool, answer: bool
) -> list[int]:
    """Return messages as token ids; ``answer`` appends the opening of the assistant's turn."""
    ids: list[int] = tokenizer.apply_chat_template(
        list(messages),
        tokenize=True,
        return_dict=False,
        add_generation_prompt=answer,
        # Always said: templates differ in what they assume.
        enable_thinking=thinking,
    )
    return ids


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common at their beginning."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def shortened(row: Row, length: int) -> Row:
    """Cut a row to ``length`` tokens, from the end."""
    return Row(row.input_ids[:length], row.labels[:length])
