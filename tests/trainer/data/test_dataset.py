"""The dataset: which file is read, and how a wrong row is reported."""

import json
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.exits import Exit
from flashrun.api.records import ResolvedEnvironment
from flashrun_trainer.data import dataset
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer.pods import Workshop, resolved, rows, sums


def spec(**params: Any) -> ResolvedEnvironment:
    split = params.get("split", "train")
    return ResolvedEnvironment(id="org/env", digest="0" * 64, split=split, params=params)


@pytest.mark.parametrize(
    ("sentence", "files", "wanted", "expected"),
    [
        ("the default", ["dataset/train.jsonl"], spec(), "dataset/train.jsonl"),
        ("json", ["dataset/train.json"], spec(), "dataset/train.json"),
        ("at the root", ["train.jsonl"], spec(), "train.jsonl"),
        ("the folder wins", ["train.jsonl", "dataset/train.json"], spec(), "dataset/train.json"),
        (
            "another split",
            ["dataset/train.jsonl", "dataset/test.jsonl"],
            spec(split="test"),
            "dataset/test.jsonl",
        ),
        ("a named file", ["data/x.csv"], spec(dataset_path="data/x.csv"), "data/x.csv"),
        ("records win", ["dataset/train.jsonl"], spec(records=[{"input": "x"}]), None),
        ("no data in the package", ["environment.py"], spec(), None),
    ],
)
def test_a_split_is_a_file(
    tmp_path: Path,
    sentence: str,
    files: list[str],
    wanted: ResolvedEnvironment,
    expected: str | None,
):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = dataset.dataset_path(tmp_path, wanted)
    assert found == (None if expected is None else tmp_path / expected)


@pytest.mark.parametrize(
    ("sentence", "files", "wanted", "reason", "words"),
    [
        (
            "no silent fallback",
            ["dataset/train.jsonl", "dataset/dev.json"],
            spec(split="test"),
            "SplitMissing",
            "no dataset/test.jsonl; it has dev, train",
        ),
        (
            "the default may be missing, too",
            ["dataset/test.jsonl"],
            spec(),
            "SplitMissing",
            "no dataset/train.jsonl; it has test",
        ),
        (
            "a split of nothing",
            ["environment.py"],
            spec(split="test"),
            "SplitMissing",
            "no dataset at all",
        ),
        (
            "a file outside the package",
            ["environment.py"],
            spec(dataset_path="../../etc/passwd"),
            "DatasetMissing",
            "is not a file of the environment's package",
        ),
    ],
)
def test_a_missing_split_is_refused(
    tmp_path: Path,
    sentence: str,
    files: list[str],
    wanted: ResolvedEnvironment,
    reason: str,
    words: str,
):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(TrainerError) as error:
        dataset.dataset_path(tmp_path, wanted)
    assert (error.value.code, error.value.reason) == (Exit.DATA, reason)
    assert words in error.value.message


def test_a_file_that_may_be_meant_as_the_dataset_is_named(tmp_path: Path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "train.csv").write_text("input,output\n1+1,2\n")
    wanted = ResolvedEnvironment(
        id="org/env", digest="0" * 64, split="train", params={"split": "train"}
    )
    with pytest.raises(TrainerError, match=r"no dataset at all; dataset/train.csv is not JSON"):
        dataset.dataset_path(tmp_path, wanted)


GOOD = json.dumps({"input": "What is 1 plus 1?", "output": "2"})


def second(line: str) -> str:
    """A dataset whose second row is ``line``."""
    return f"{GOOD}\n{line}\n"


def output(value: Any) -> str:
    """A dataset whose second row has this output."""
    return second(json.dumps({"input": "What is 2 plus 2?", "output": value}))


def messages(*found: Any) -> str:
    return output({"messages": list(found)})


LINE_2 = "reading dataset/train.jsonl, line 2"
ROW_2 = "reading the output of row 2"

ROWS: dict[str, tuple[str, str, str]] = {
    "no JSON": (second("{nonsense"), "DatasetInvalid", LINE_2),
    "half a row": (second('{"input": "What'), "DatasetInvalid", LINE_2),
    "a number": (second("7"), "DatasetInvalid", LINE_2),
    "a list": (second("[1, 2]"), "DatasetInvalid", LINE_2),
    "null": (second("null"), "DatasetInvalid", LINE_2),
    "no input": (second('{"output": "4"}'), "DatasetInvalid", LINE_2),
    "a mark of its byte order": (f"\ufeff{GOOD}\n", "DatasetInvalid", "train.jsonl, line 1"),
    "an input of null": (second('{"input": null, "output": "4"}'), "DatasetInvalid", LINE_2),
    "no rows": ("", "DatasetEmpty", "has no examples"),
    "nothing but empty lines": ("\n\n", "DatasetEmpty", "has no examples"),
    "no output anywhere": (
        rows(("What is 1 plus 1?", None), ("What is 2 plus 2?", "")),
        "NothingToLearn",
        "none of the 2 examples has an output",
    ),
    "an empty list of messages": (messages(), "DatasetInvalid", ROW_2),
    "a message that is text": (messages("4"), "DatasetInvalid", ROW_2),
    "a message without a role": (messages({"content": "4"}), "DatasetInvalid", ROW_2),
    "a role that nobody has": (
        messages({"role": "robot", "content": "4"}),
        "DatasetInvalid",
        ROW_2,
    ),
    "content that is a number": (
        messages({"role": "assistant", "content": 4}),
        "DatasetInvalid",
        ROW_2,
    ),
    "content that is a picture": (
        messages({"role": "assistant", "content": [{"type": "image_url", "image_url": "x"}]}),
        "DatasetInvalid",
        ROW_2,
    ),
    "a tool call without a name": (
        messages({"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}),
        "DatasetInvalid",
        ROW_2,
    ),
    "a tool call whose arguments are no object": (
        messages(
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "add", "arguments": "[1, 2]"}}],
            }
        ),
        "DatasetInvalid",
        ROW_2,
    ),
}


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", ROWS)
def test_a_row_of_the_wrong_shape_is_named(workshop: Workshop, case: str):
    data, reason, words = ROWS[case]
    pod = workshop.pod(resolved("sft"), sums(train=data))
    assert pod.train() == Exit.DATA
    assert pod.termination.reason == reason
    assert words in pod.termination.message
    assert pod.termination.hint
    assert "\n" not in pod.termination.message


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_bytes_that_are_not_text_are_named_by_their_line(workshop: Workshop):
    # A lone surrogate stands for a byte that is not text.
    pod = workshop.pod(resolved("sft"), sums(train=second('{"input": "\udcff"}')))
    assert pod.train() == Exit.DATA
    assert pod.termination.reason == "DatasetInvalid"
    assert LINE_2 in pod.termination.message


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_a_split_that_is_missing_although_train_exists_is_an_error(workshop: Workshop):
    environment = {"split": "test", "params": {"split": "test"}}
    pod = workshop.pod(resolved("sft", environment=environment))
    assert pod.train() == Exit.DATA
    assert "no dataset/test.jsonl; it has train" in pod.termination.message
