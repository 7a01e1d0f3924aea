"""What is read out of an environment's package and out of a model's answer."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from freesolo import environments
from freesolo.datasets import TaskExample
from freesolo.environments import EnvironmentMultiTurn

from flashrun.api.exits import Exit
from flashrun.api.records import ResolvedEnvironment
from flashrun_trainer.data import dataset, environment
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.data.messages import Answer
from flashrun_trainer.pod.trainer_errors import TrainerError
from flashrun_trainer.records import reporter


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


@pytest.mark.parametrize(
    ("sentence", "raw", "opened", "answer", "thinking"),
    [
        ("no reasoning", "42", False, "42", ""),
        ("spaces are kept without reasoning", " 42\n", False, " 42\n", ""),
        (
            "reasoning, then an answer",
            "<think>six by seven</think>\n\n42",
            False,
            "42",
            "six by seven",
        ),
        ("the prompt opened it", "six by seven</think>\n\n42", True, "42", "six by seven"),
        ("reasoning that never ends", "<think>six by", False, "", "six by"),
        ("the same, opened by the prompt", "six by", True, "", "six by"),
        (
            "what the prompt opened is not opened again",
            "six <think></think>42",
            True,
            "42",
            "six <think>",
        ),
        (
            "the last end counts",
            "<think>a</think>b<think>c</think>d",
            False,
            "d",
            "a</think>b<think>c",
        ),
    ],
)
def test_an_answer_comes_after_the_reasoning(
    sentence: str, raw: str, opened: bool, answer: str, thinking: str
):
    found = Answer(raw, opened=opened)
    assert (str(found), found.thinking, found.raw) == (answer, thinking, raw)
    # As it was sampled, up to its spaces.
    assert raw.endswith(found.completion)
    assert found.completion.strip() == answer.strip()


@pytest.mark.parametrize("raw", ["<think>a</think><answer>b</answer>", "<think>a", "b"])
def test_what_a_model_says_that_does_not_think_is_all_of_its_answer(raw: str):
    found = Answer(raw, thinks=False)
    assert (str(found), found.completion, found.raw, found.thinking) == (raw, raw, raw, "")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("thinks", [True, False])
def test_a_copy_of_an_answer_is_not_split_again(copied: Callable, thinks: bool):
    raw = "<think>a</think>b</think>c<think>d"
    found = copied(Answer(raw, thinks))
    assert str(found) == str(Answer(raw, thinks))
    assert vars(found) == vars(Answer(raw, thinks))


def test_the_first_thought_is_what_the_length_penalty_counts():
    assert Answer("<think>a</think>b<think>c</think>d").first_thought == "a"


class Board(EnvironmentMultiTurn):
    """An environment whose examples come from code, and do not stay as they were."""

    dataset = (TaskExample({}, "Go.", metadata={(0, 1): "x", "turn": 1}),)
    limit: Any = 3

    def start_episode(self, example, prompt_text):
        example.metadata["turn"] += 1
        return [{"role": "user", "content": example.input}]

    def max_episode_turns(self, example):
        return self.limit

    def step_episode(self, example, messages, assistant_response): ...

    def score_episode(self, example, episode): ...


def test_the_digest_is_that_of_the_examples_as_they_were_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "environment.py").touch()
    monkeypatch.setattr(environments, "load_environment", lambda *_, **__: Board())
    loaded = environment.load_folder(tmp_path, spec())
    before = Environment(Board(), loaded.examples, "").digest
    loaded.prompt(loaded.examples[0])
    assert Environment(Board(), loaded.examples, "").digest != before
    assert loaded.digest == before


@pytest.mark.parametrize(("limit", "words"), [(0, "must return 1 or more"), (None, "TypeError")])
def test_a_number_of_turns_that_is_none_is_the_environments_fault(limit: Any, words: str):
    sdk = Board()
    assert Environment(sdk, Board.dataset, "").max_turns(Board.dataset[0]) == 3
    sdk.limit = limit
    with pytest.raises(TrainerError) as error:
        Environment(sdk, Board.dataset, "").max_turns(Board.dataset[0])
    assert (error.value.code, error.value.reason) == (Exit.ENVIRONMENT, "EnvironmentFailed")
    assert words in error.value.message


def test_a_resumed_history_ends_where_it_is_resumed():
    rows = [
        {"step": step, "attempt": 1, "time": "2026-01-01T00:00:00Z", "values": {"loss": 1.0}}
        for step in (1, 2, 3)
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    half_written = lines[2][:20]
    assert reporter.history_until("".join(lines[:2]) + half_written, 2) == "".join(lines[:2])
    assert reporter.history_until("".join(lines), 2) == "".join(lines[:2])
    assert reporter.history_until("".join(lines), 0) == ""
