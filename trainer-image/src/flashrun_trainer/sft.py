"""SFT: learn by imitating the completions that the environment provides.

Every row is rendered with the model's chat template here, to token ids and labels. The loss is on
what the assistant says in the completion; prompt, user and tool messages are context.
"""

import logging
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from flashrun.spec.outcome import Exit
from flashrun.spec.records import Batching, ResolvedRun
from flashrun_trainer import arguments, loop, model, packing
from flashrun_trainer.environment import Environment, Message, row_name, shown
from flashrun_trainer.failures import TrainerError, sentence
from flashrun_trainer.packing import IGNORED
from flashrun_trainer.session import Session

log = logging.getLogger(__name__)

_MANY: Final = 0.05
"""Share of the examples from which on a warning is not only for the log."""
_WEIGHED: Final = ("entropy", "mean_token_accuracy")


class Conversation(NamedTuple):
    """One example: what is asked, and what the assistant shall say and do."""

    prompt: list[Message]
    completion: list[Message]
    name: str = "an example"
    """How people count it."""


class Row(NamedTuple):
    """One example as token ids, with the ids to learn as labels."""

    input_ids: list[int]
    labels: list[int]
    cut: bool = False
    """Whether something that was to be learned did not fit."""


def train(session: Session) -> Path | None:
    """Train, and return the folder of the final adapter; None when interrupted."""
    run, machine = session.run, session.machine
    link = loop.Link(session)
    tokenizer = model.load_tokenizer(session.pod.model_folder(run))
    pairs = conversations(session.environment, run)
    rows = training_rows(pairs, tokenizer, run)
    session.reporter.warn(
        "; ".join(filter(None, (amiss(pairs, run.thinking), cut_short(rows, run))))
    )
    loop.same_everywhere(session.ranks, (row.input_ids for row in rows))

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
    link.epochs_of = plan.steps.epochs_until
    trainer = Trainer(
        model=network,
        peft_config=LoraConfig(**adapter) if adapter else None,
        args=SFTConfig(**arguments.sft(run, machine, output, plan.passes, len(plan.steps))),
        train_dataset=Dataset.from_dict({"pass": range(plan.size * len(plan.steps))}),
        data_collator=packing.Collator(plan, rows, tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[link],
    )
    return loop.drive(trainer, link, session)


class Trainer(loop.WithoutCards, SFTTrainer):
    """TRL's trainer with a warm-up that begins above 0, and means that count every token once."""

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
        self._weights().append(int(self.accelerator.gather_for_metrics(learned).sum()))
        return super().compute_loss(model, inputs, *more, **kept)

    def log(self, logs: dict[str, float], *more: Any) -> None:
        """Weigh the means of the passes by what was learned from each: TRL takes all alike."""
        weights = self._weights()
        for name in _WEIGHED:
            means = self._metrics["train"].get(name)
            if means and sum(weights):
                sums = (mean * weight for mean, weight in zip(means, weights, strict=True))
                self._metrics["train"][name] = [sum(sums) / sum(weights)]
        weights.clear()
        super().log(logs, *more)

    def _weights(self) -> list[int]:
        found: list[int] = self.__dict__.setdefault("_learned_tokens", [])
        return found


def conversations(environment: Environment, run: ResolvedRun) -> list[Conversation]:
    """Return prompt and completion of the examples, without those that have no output."""
    examples = environment.examples[: run.train.max_examples or None]
    found = [
        Conversation(
            environment.prompt(example), environment.completion(example), row_name(example)
        )
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
    rows = []
    for pair in pairs:
        with naming(pair.name):
            row = render(tokenizer, pair.prompt, pair.completion, run.thinking)
        rows.append(shortened(row, run.train.max_length))
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
            "NothingToLearn",
            f"not one of {len(rows)} examples has a completion within max_length = "
            f"{run.train.max_length} tokens",
            "raise train.max_length, or shorten the prompts",
        )
    return kept


def cut_short(rows: Sequence[Row], run: ResolvedRun) -> str:
    """Say how many answers have lost their end; return it when they are too many to be ignored."""
    cut = sum(row.cut for row in rows)
    if not cut:
        return ""
    said = (
        f"{cut} of {len(rows)} examples have lost the end of their completion to max_length = "
        f"{run.train.max_length} tokens, and do not teach when to stop: raise train.max_length"
    )
    if cut > _MANY * len(rows):
        return said
    log.warning("%s", said)
    return ""


def amiss(pairs: Sequence[Conversation], thinking: bool) -> str:
    """Return a sentence when the run shall reason and its outputs do not, or the other way round.

    In both cases what is learned follows another opening than what is asked for later.
    """
    targets = [any(map(_reasons, pair.completion)) for pair in pairs]
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


def _says_something(message: Message) -> bool:
    said = (message["content"].strip(), message.get("tool_calls"), message.get("reasoning_content"))
    return message["role"] == "assistant" and any(said)


def _reasons(message: Message) -> bool:
    _, opened, inside = message["content"].partition("<think>")
    closed = bool(opened) and "</think>" in inside
    return message["role"] == "assistant" and bool(closed or message.get("reasoning_content"))


@contextmanager
def naming(example: str) -> Iterator[None]:
    """Name the example in whatever is wrong with it."""
    try:
        yield
    except TrainerError as error:
        said = f"{example}: {error.message}"
        raise TrainerError(error.code, error.reason, said, error.hint) from error.__cause__


def render(tokenizer: Any, prompt: list[Message], completion: list[Message], thinking: bool) -> Row:
    """Return the whole conversation as token ids, with the assistant's part of it as labels.

    A turn begins behind what the template writes to ask for an answer. What that holds, such as an
    empty pair of think tags, is not learned; nor is what comes behind the end-of-turn token, which
    ends generation.
    """
    messages = [*prompt, *completion]
    end = turn_end(tokenizer, thinking)
    asked = rendered(tokenizer, prompt, thinking, answer=True)
    if len(completion) == 1:
        whole = rendered(tokenizer, messages, thinking, answer=False)
        turns = [(common_length(asked, whole), _end(whole, end))]
    else:
        unasked = rendered(tokenizer, prompt, thinking, answer=False)
        found = _Dialogue(tokenizer, messages, thinking, asked[common_length(unasked, asked) :])
        whole = found.ids
        turns = [
            found.turn(index, end)
            for index in range(len(prompt), len(messages))
            if messages[index]["role"] == "assistant"
        ]
    labels = [IGNORED] * len(whole)
    for begin, stop in turns:
        labels[begin:stop] = whole[begin:stop]
    return Row(whole, labels)


class _Dialogue:
    """A conversation with several turns of the assistant, and where each of them lies.

    Templates render a turn in the middle otherwise than at the end, with all turns before it, so
    the conversation up to the turn says nothing about its place. What stays the same when the
    assistant says something else there is what comes before and after. That is compared as text:
    tokenizing the conversation once a turn would take seconds.
    """

    def __init__(
        self, tokenizer: Any, messages: list[Message], thinking: bool, opening: list[int]
    ) -> None:
        self._tokenizer, self._messages, self._thinking = tokenizer, messages, thinking
        self._opening = opening
        self._text = written(tokenizer, messages, thinking, answer=False)
        found = tokenizer(self._text, add_special_tokens=False, return_offsets_mapping=True)
        self.ids: list[int] = found["input_ids"]
        self._begins, self._ends = zip(*found["offset_mapping"], strict=True)

    def turn(self, index: int, end: int) -> tuple[int, int]:
        """Return where the turn begins and ends among the tokens, its end-of-turn token included.

        ``end`` is that token.
        """
        before, after = self._around(index)
        parted = bisect_right(self._ends, before)
        backwards = range(parted - 1, -1, -1)
        opening = self._opening
        opened = next((at for at in backwards if self.ids[at : at + 1] == opening[:1]), parted)
        begin = opened + common_length(opening, self.ids[opened : opened + len(opening)])
        if index + 1 == len(self._messages):
            return begin, _end(self.ids, end)
        stop = bisect_left(self._begins, after)
        return begin, stop + 1 if self.ids[stop : stop + 1] == [end] else stop

    def _around(self, index: int) -> tuple[int, int]:
        """Return where in the text the turn's content begins and ends."""
        messages, text = self._messages, self._text
        said = str(messages[index].get("content") or "").strip()
        other = next(m for m in "#%@" if not said.startswith(m) and not said.endswith(m))
        changed: Message = {"role": "assistant", "content": other}
        variant = written(
            self._tokenizer,
            [*messages[:index], changed, *messages[index + 1 :]],
            self._thinking,
            answer=False,
        )
        before = common_length(text, variant)
        return before, len(text) - common_length(text[::-1], variant[::-1])


def turn_end(tokenizer: Any, thinking: bool) -> int:
    """Return the token with which the template ends an assistant's turn.

    It need not be the end-of-sequence token: some models end generation at several.
    """
    return _turn_end(tokenizer, str(tokenizer.chat_template), thinking)


@lru_cache(maxsize=8)
def _turn_end(tokenizer: Any, _: str, thinking: bool) -> int:
    probe: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    ids = rendered(tokenizer, probe, thinking, answer=False)
    said = max((at for at, token in enumerate(ids) if "!" in tokenizer.decode([token])), default=-1)
    end: int = next(iter(ids[said + 1 :]), tokenizer.eos_token_id)
    return end if end in tokenizer.added_tokens_decoder else int(tokenizer.eos_token_id)


def _end(whole: list[int], end: int) -> int:
    """Return where a last turn ends: behind the last end-of-turn token."""
    return len(whole) - next((i for i, token in enumerate(whole[::-1]) if token == end), 0)


def rendered(
    tokenizer: Any, messages: Sequence[Message], thinking: bool, answer: bool
) -> list[int]:
    """Return messages as token ids; ``answer`` appends the opening of the assistant's turn.

    Raises:
        TrainerError: the template refuses the messages.
    """
    text = written(tokenizer, messages, thinking, answer)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def written(tokenizer: Any, messages: Sequence[Message], thinking: bool, answer: bool) -> str:
    """Return messages as the template writes them; ``answer`` as for ``rendered``.

    Raises:
        TrainerError: the template refuses the messages, or there is what no tokenizer takes.
    """
    try:
        text = tokenizer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=answer,
            # Always said: templates differ in what they assume.
            enable_thinking=thinking,
        )
        text.encode()  # halves of characters
    except Exception as error:
        # A template is a program; whatever it raises, it is these messages that it cannot render.
        raise TrainerError(
            Exit.DATA,
            "TemplateRefused",
            f"the model's chat template refuses messages that end with {shown(messages[-1])}: "
            f"{sentence(error)}",
            "change the messages that the environment builds",
        ) from error
    return str(text)


def common_length(left: Sequence[Any], right: Sequence[Any]) -> int:
    """Return how many tokens, or characters, two sequences have in common at their beginning."""
    shorter = min(len(left), len(right))
    # By halves: comparing slices is much faster than comparing one by one.
    return bisect_left(range(1, shorter + 1), True, key=lambda n: left[:n] != right[:n])


def shortened(row: Row, length: int) -> Row:
    """Cut a row to ``length`` tokens, from the end."""
    lost = any(label != IGNORED for label in row.labels[length:])
    return Row(row.input_ids[:length], row.labels[:length], lost)
