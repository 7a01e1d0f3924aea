"""The held-out split: which examples are evaluated, and what is wrong with them."""

import sys
from pathlib import Path

import pytest

from flashrun.api.records import ResolvedEnvironment
from flashrun_trainer.data import held_out
from flashrun_trainer.data.environment import Environment, load_folder
from flashrun_trainer.data.held_out import HeldOutSplit, evaluation_order, split_spec
from flashrun_trainer.pod.distributed import ProcessGroup
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer.pods import HEAD, evaluated, resolved, rows

CODE = (
    HEAD
    + """
    def score_response(self, example, response_text):
        return RewardResult(score=1.0)


def load_environment(**params):
    return Environment()
"""
)
TRAIN = rows(("1", "one"), ("2", "two"), ("3", "three"))


@pytest.fixture(autouse=True)
def _restored_path():
    before = list(sys.path)
    yield
    sys.path[:] = before


class Package:
    """An environment's package in a pod."""

    def __init__(self, folder: Path, **files: str) -> None:
        self.folder = folder / "packages" / "environment"
        (self.folder / "dataset").mkdir(parents=True)
        (self.folder / "environment.py").write_text(CODE)
        for split, text in {"train": TRAIN, **files}.items():
            (self.folder / "dataset" / f"{split}.jsonl").write_text(text)
        (folder / "work").mkdir()
        variables = {
            "FLASHRUN_PACKAGES": str(folder / "packages"),
            "FLASHRUN_WORK": str(folder / "work"),
        }
        self.pod = PodMounts.from_environment(variables)

    def training(self) -> Environment:
        """The environment that is trained on."""
        return load_folder(self.folder, self.spec)

    @property
    def spec(self) -> ResolvedEnvironment:
        return ResolvedEnvironment(id="team/env", digest="0" * 64, split="train")

    def load(self, **settings: object) -> HeldOutSplit:
        run = resolved("sft", eval=evaluated(**settings))
        return held_out.load(self.pod, run, self.training(), ProcessGroup())


def test_the_split_has_an_environment_of_its_own(tmp_path: Path):
    package = Package(tmp_path, eval=rows(("4", "four"), ("5", "five")))
    training = package.training()
    split = package.load()
    assert [example.input for example in split.environment.examples] == ["4", "5"]
    assert split.remark == ""
    modules = [sys.modules[type(sdk.sdk).__module__] for sdk in (training, split.environment)]
    assert modules[0] is not modules[1]  # a worker that unpickles a function finds the right one


def test_a_split_that_the_config_names_must_exist(tmp_path: Path):
    package = Package(tmp_path, exam=TRAIN)
    with pytest.raises(TrainerError) as caught:
        package.load(split="test")
    assert caught.value.reason == "EvalSplitMissing"
    assert (
        "no dataset/test.jsonl to evaluate the run on; it has exam, train" in caught.value.message
    )
    assert package.load(split="test", required=False) == HeldOutSplit()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "split 'eval' of examples/sums has no examples"),
        ("{}\nnot JSON\n", "eval.jsonl, line 1"),
    ],
)
def test_a_split_that_cannot_be_read_ends_only_a_run_that_names_it(
    tmp_path: Path, text: str, wanted: str
):
    package = Package(tmp_path, eval=text)
    with pytest.raises(TrainerError, match=wanted):
        package.load()
    split = package.load(required=False)
    assert split.environment is None
    assert split.remark.startswith("the run is not evaluated: ")
    assert wanted in split.remark


def test_examples_that_are_also_trained_on_are_counted(tmp_path: Path):
    package = Package(tmp_path, eval=rows(("9", "nine"), ("2", "2"), ("3", "three")))
    assert package.load().remark.startswith(
        "2 of 3 examples of split eval are also trained on (row 2 is the first)"
    )


def test_parameters_with_the_rows_of_training_do_not_reach_the_held_out_split():
    spec = ResolvedEnvironment(
        id="team/env",
        digest="0" * 64,
        split="train",
        params={"split": "train", "records": [{"input": "1"}], "dataset_path": "a", "level": 2},
    )
    assert split_spec(spec, "eval").params == {"split": "eval", "level": 2}


def test_the_order_of_evaluations_is_the_same_in_every_run_and_not_that_of_the_file():
    order = evaluation_order(64)
    assert order == evaluation_order(64)
    assert sorted(order) == list(range(64))
    assert order != sorted(order)
    # Sorted files are halved evenly.
    assert 4 <= sum(index < 32 for index in order[:16]) <= 12


@pytest.mark.trainer
def test_examples_that_cannot_be_used_are_left_out_and_counted(tmp_path: Path, tiny_model: Path):
    from flashrun_trainer.model import load_tokenizer

    package = Package(tmp_path, eval=rows(("4", "four"), ("long " * 200, "6"), ("5", None)))
    tokenizer = load_tokenizer(tiny_model)
    run = resolved("sft", eval=evaluated())
    found = held_out.read_rows(package.load(), run.eval, tokenizer, run)
    assert sorted(row.prompt.example.input for row in found.rows) == ["4", "5"]
    assert {row.prompt.example.input: len(row.labelled) for row in found.rows} == {"4": 1, "5": 0}
    assert "1 of 3 held-out examples are left out of evaluations: row 2: its prompt" in found.remark

    (package.folder / "dataset" / "eval.jsonl").write_text(rows(("long " * 200, "6")))
    with pytest.raises(TrainerError, match="no example of split eval can be used: row 1"):
        held_out.read_rows(package.load(), run.eval, tokenizer, run)


@pytest.mark.trainer
def test_what_the_template_refuses_is_left_out_with_its_row_and_reason(
    tmp_path: Path, tiny_model: Path
):
    from flashrun_trainer.model import load_tokenizer

    package = Package(tmp_path, eval=rows(("4", "four"), ("5", "refused")))
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = (
        "{%- for m in messages if '5' in m.content %}{{ raise_exception('no fives') }}{%- endfor %}"
        + tokenizer.chat_template
    )
    run = resolved("grpo", eval=evaluated())
    found = held_out.read_rows(package.load(), run.eval, tokenizer, run)
    assert [row.prompt.example.input for row in found.rows] == ["4"]
    assert "1 of 2 held-out examples are left out of evaluations: row 2: " in found.remark
    assert "no fives" in found.remark
