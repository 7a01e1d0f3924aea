"""The examples that a run is evaluated on, and never trained on.

The environment is loaded a second time for them, from a copy of its package. What its code counts,
caches or draws while it scores an evaluation is then apart from what it does in training.
"""

import json
import logging
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flashrun.api.config import Algorithm
from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedEnvironment, ResolvedEval, ResolvedRun
from flashrun_trainer.data import environment as environments
from flashrun_trainer.data.dataset import dataset_path, example_name, list_splits
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.data.episodes import check_template
from flashrun_trainer.data.labels import TokenizedExample, tokenize_conversation, truncate_row
from flashrun_trainer.data.messages import is_learnable
from flashrun_trainer.data.prompts import Prompt, make_prompt
from flashrun_trainer.data.random_stream import RandomStream
from flashrun_trainer.pod.distributed import ProcessGroup
from flashrun_trainer.pod.hard_links import link_or_copy
from flashrun_trainer.pod.trainer_errors import TrainerError

if TYPE_CHECKING:  # it brings the client for storage, of which flash env test has no use
    from flashrun_trainer.pod.mounts import PodMounts

log = logging.getLogger(__name__)

_ORDER: Final = "held-out"


class HeldOutRow(NamedTuple):
    """One example, ready to be answered."""

    prompt: Prompt
    labelled: tuple[TokenizedExample, ...] = ()
    """The example's own answer, for SFT's loss; empty if it has none."""

    @property
    def name(self) -> str:
        """The name of the example for people."""
        return example_name(self.prompt.example)


class HeldOutSplit(NamedTuple):
    """The environment with the held-out split."""

    environment: Environment | None = None
    """None when the run is not evaluated."""
    remark: str = ""
    """What the user should know about the split."""


@dataclass(frozen=True)
class HeldOut:
    """The rows of a split, in the order in which evaluations take them."""

    environment: Environment
    rows: Sequence[HeldOutRow]
    answers: bool = True
    """Whether the model answers them; if not, only the loss is measured."""
    remark: str = ""
    """What the user should know about the rows."""


def load(
    pod: "PodMounts", run: ResolvedRun, environment: Environment, process_group: ProcessGroup
) -> HeldOutSplit:
    """Load the environment with the held-out split, if the package has it.

    A problem of a split that the config does not name ends no run.

    Raises:
        TrainerError: the config names the split, and it cannot be used.
    """
    if run.eval is None:
        return HeldOutSplit()
    spec = split_spec(run.environment, run.eval.split)
    if not has_split(pod.environment, spec, environment):
        if run.eval.required:
            raise _missing_error(pod.environment, spec, environment)
        return HeldOutSplit()
    copy = pod.work / f"held-out-{process_group.local_rank}"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(pod.environment, copy, symlinks=True, copy_function=link_or_copy)
    try:
        # What its code draws while it is loaded must not change what training draws.
        with RandomStream().in_use():
            loaded = environments.load_folder(
                copy, spec, process_group=process_group, python=pod.own_python
            )
    except TrainerError as error:
        if run.eval.required:
            raise
        return HeldOutSplit(None, f"the run is not evaluated: {error.message}")
    return HeldOutSplit(loaded, overlap_remark(environment, loaded, spec.split))


def split_spec(spec: ResolvedEnvironment, split: str) -> ResolvedEnvironment:
    """Return an environment with another split of its package."""
    params = {
        name: value
        for name, value in spec.params.items()
        if name not in ("dataset_path", "records")
    }
    if "split" in params:
        params["split"] = split
    return spec.replace(split=split, params=params)


def has_split(folder: Path, spec: ResolvedEnvironment, environment: Environment) -> bool:
    """Return whether the package in ``folder`` has a split: mostly the file of it.

    ``environment`` is the same package, loaded with another split.
    """
    if environment.own_splits is not None:
        return spec.split in environment.own_splits
    try:
        return dataset_path(folder, spec) is not None
    except TrainerError:
        return False


def _missing_error(
    folder: Path, spec: ResolvedEnvironment, environment: Environment
) -> TrainerError:
    splits = list_splits(folder) if environment.own_splits is None else environment.own_splits
    listed = ", ".join(splits) or "no dataset at all"
    return TrainerError(
        Exit.DATA,
        Reason.EVAL_SPLIT_MISSING,
        f"the package of {spec.id} has no dataset/{spec.split}.jsonl to evaluate the run on; it "
        f"has {listed}",
        "set eval.split to one of these, or add the file and run flash env push",
    )


def overlap_remark(training: Environment, held_out: Environment, split: str) -> str:
    """Return a warning about held-out examples that are trained on, too, or an empty string."""
    trained = set(map(_identity, training.examples))
    shared = [example for example in held_out.examples if _identity(example) in trained]
    if not shared:
        return ""
    return (
        f"{len(shared)} of {len(held_out.examples)} examples of split {split} are also trained "
        f"on ({example_name(shared[0])} is the first), so the evaluation says little about new "
        "questions: remove them from one of the two files"
    )


def _identity(example: Any) -> str:
    """Return what the model is asked in an example, for a comparison."""
    from freesolo.utils.core import json_safe_value

    record = example.record if isinstance(example.record, dict) else {}
    asked = [example.input, record.get("messages"), record.get("tools")]
    return json.dumps(json_safe_value(asked), sort_keys=True)


def evaluation_order(examples: int) -> list[int]:
    """Return the order in which evaluations take the examples: the same one in every run.

    A file may be sorted, and fewer examples should still be a fair part of it.
    """
    return random.Random(f"{_ORDER}/{examples}").sample(range(examples), examples)


def read_rows(
    split: HeldOutSplit, settings: ResolvedEval, tokenizer: Any, run: ResolvedRun
) -> HeldOut:
    """Render the examples; those that cannot be used are left out, and the remark counts them.

    Raises:
        TrainerError: no example can be used.
    """
    with RandomStream().in_use():
        return _read_rows(split, settings, tokenizer, run)


def _read_rows(
    split: HeldOutSplit, settings: ResolvedEval, tokenizer: Any, run: ResolvedRun
) -> HeldOut:
    environment = split.environment
    assert environment is not None
    examples = environment.examples[: settings.max_examples]
    readable: list[HeldOutRow] = []
    faults: list[str] = []
    longest = longest_prompt(environment, settings, run)
    for example in examples:
        try:
            row = _read_row(environment, tokenizer, example, run)
        except TrainerError as error:
            faults.append(error.message)
            continue
        length = len(row.prompt.ids)
        if length > longest:
            faults.append(
                f"{row.name}: its prompt has {length} tokens, and there is room for {longest}"
            )
            continue
        readable.append(row)
    rows = [readable[index] for index in evaluation_order(len(readable))]
    remarks = [split.remark]
    if faults:
        remarks.append(
            f"{len(faults)} of {len(examples)} held-out examples are left out of evaluations: "
            f"{faults[0]}"
        )
    if not rows:
        raise TrainerError(
            Exit.DATA,
            Reason.EVAL_SPLIT_MISSING,
            f"no example of split {settings.split} can be used: {faults[0]}",
            "correct the split, or set eval.enabled = false",
        )
    answers = True
    if environment.is_multi_turn:
        try:
            check_template(environment, tokenizer, run.thinking)
        except TrainerError as error:
            answers = False
            remarks.append(f"evaluations measure only the loss of answers: {error.message}")
    return HeldOut(environment, rows, answers, "; ".join(filter(None, remarks)))


def _read_row(
    environment: Environment, tokenizer: Any, example: Any, run: ResolvedRun
) -> HeldOutRow:
    prompt = make_prompt(environment, tokenizer, example, run.thinking)
    if run.algorithm is not Algorithm.SFT:
        return HeldOutRow(prompt)
    conversation = environment.conversation(example)
    if not any(map(is_learnable, conversation.completion)):
        return HeldOutRow(prompt)
    with environments.naming_example(conversation.name):
        whole = tokenize_conversation(
            tokenizer,
            conversation.prompt,
            conversation.completion,
            run.thinking,
            conversation.tools,
        )
    return HeldOutRow(prompt, tuple(truncate_row(whole, run.train.max_length)))


def longest_prompt(environment: Environment, settings: ResolvedEval, run: ResolvedRun) -> int:
    """Return the most tokens before an answer; episodes keep room for each further answer."""
    most = run.train.max_length
    if environment.is_multi_turn:
        return most - min(settings.max_tokens, most // 2)
    return most - 1
