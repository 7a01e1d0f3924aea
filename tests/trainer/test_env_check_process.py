"""The check of an environment with a model's tokenizer and template."""

import io
import json
from pathlib import Path

import pytest

from flashrun.api.config import Algorithm
from flashrun.api.env_check_records import CheckEvent, EnvCheckTask
from flashrun_trainer.data import openings
from flashrun_trainer.env_check_process import CheckReporter, check_environment
from tests.trainer import chat_templates

ENVIRONMENT = """
from freesolo.environments import EnvironmentMultiTurn, EnvironmentStepResult, RewardResult


class Talk(EnvironmentMultiTurn):
    def start_episode(self, example, prompt_text):
        return [{"role": example.metadata["role"], "content": example.input}]

    def max_episode_turns(self, example):
        return 2

    def step_episode(self, example, messages, assistant_response):
        content = "half \\ud83d" if example.input == "halves" else "Again."
        role = "tool" if example.input == "tools" else "user"
        return EnvironmentStepResult(done=False, messages=({"role": role, "content": content},))

    def score_episode(self, example, episode):
        return RewardResult(score=float(len(episode.messages)))


def load_environment(**params):
    return Talk()
"""

REFUSING = (
    "{%- for m in messages if m.role == 'tool' %}{{ raise_exception('no tools here') }}"
    "{%- endfor %}"
)


def checked(tmp_path: Path, model: str) -> list[CheckEvent]:
    """The events of a check of four rows."""
    folder = tmp_path / "env"
    (folder / "dataset").mkdir(parents=True, exist_ok=True)
    (folder / "environment.py").write_text(ENVIRONMENT)
    lines = "".join(
        f'{{"input": "{text}", "output": "7", "metadata": {{"role": "{role}"}}}}\n'
        for text, role in (("fine", "user"), ("tools", "user"), ("halves", "user"), ("x", "tool"))
    )
    (folder / "dataset" / "train.jsonl").write_text(lines)
    events = io.StringIO()
    task = EnvCheckTask(folder=str(folder), split="train", scored=4, model=model)
    check_environment(CheckReporter(task, events))
    return [CheckEvent.model_validate_json(line) for line in events.getvalue().splitlines()]


@pytest.mark.trainer
def test_what_the_models_template_refuses_is_found_in_prompts_and_replies(
    tmp_path: Path, tiny_model: Path
):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = REFUSING + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path / "model")
    events = checked(tmp_path, str(tmp_path / "model"))
    faults = [event.fault.sentence for event in events if event.fault]
    assert len(faults) == 2
    assert faults[0].startswith("row 4: the model's chat template refuses messages")
    assert faults[1].startswith("1 of 4 rows have an episode that cannot be opened")
    fine, tools, halves = (event.row for event in events if event.row)
    # The opening, two answers, and a reply to each.
    assert (fine.gold.score, fine.gold.turns) == (5, 2)
    assert tools.gold.error.startswith("in turn 1: the model's chat template refuses messages")
    assert "no tools here" in tools.gold.error
    assert halves.gold.error.startswith("in turn 1: messages that end with")


REASONED = """
from freesolo.environments import EnvironmentSingleTurn, RewardResult


class Sums(EnvironmentSingleTurn):
    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": example.input}]

    def score_response(self, example, response_text):
        return RewardResult(score=float(response_text == "7"))


def load_environment(**params):
    return Sums()
"""
THOUGHT, USUAL = "<|channel>thought\\nHm.<channel|>", "<think>Hm.</think>"


@pytest.mark.trainer
@pytest.mark.parametrize("thinking", [True, False])
def test_reasoning_is_what_the_model_marks_as_such(
    tmp_path: Path, tiny_model: Path, thinking: bool
):
    tokenizer = chat_templates.tokenizer_with("gemma4", tiny_model)
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "environment.py").write_text(REASONED)
    rows = [f'{{"input": "?", "output": "{marked}7"}}\n' for marked in (THOUGHT, USUAL, "")]
    (tmp_path / "dataset" / "train.jsonl").write_text("".join(rows))
    found = {}
    for model in (str(tmp_path / "model"), ""):
        events = io.StringIO()
        task = EnvCheckTask(
            folder=str(tmp_path), split="train", scored=3, model=model, thinking=thinking
        )
        check_environment(CheckReporter(task, events))
        lines = map(CheckEvent.model_validate_json, events.getvalue().splitlines())
        checked_rows = [event.row for event in lines if event.row]
        found[bool(model)] = [(row.has_thoughts, row.gold.score) for row in checked_rows]
    assert found[True] == [(True, 1), (True, 1), (False, 1)]
    # Without the model, only the usual tags are known.
    assert found[False] == [(False, 0), (True, float(thinking)), (False, 1)]


def test_without_a_model_no_template_is_asked(tmp_path: Path):
    events = checked(tmp_path, "")
    assert [event.fault for event in events if event.fault] == []
    assert [event.row.gold.error for event in events if event.row] == [""] * 4


def test_an_answer_that_only_calls_a_tool_is_an_answer(tmp_path: Path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "environment.py").write_text(REASONED)
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    row = {"input": "?", "output": {"role": "assistant", "tool_calls": [call]}}
    (tmp_path / "dataset" / "train.jsonl").write_text(json.dumps(row))
    events = io.StringIO()
    task = EnvCheckTask(folder=str(tmp_path), split="train", scored=1)
    check_environment(CheckReporter(task, events))
    [checked_row] = [
        event.row
        for line in events.getvalue().splitlines()
        if (event := CheckEvent.model_validate_json(line)).row
    ]
    assert '"name": "add"' in checked_row.answer
    assert checked_row.answer_characters == len(checked_row.answer)


@pytest.mark.trainer
def test_a_tokenizer_that_cannot_be_used_is_an_error_of_its_own(tmp_path: Path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    events = checked(tmp_path, str(tmp_path))
    [fault] = [event.fault for event in events if event.fault]
    assert "tokenizer" in fault.sentence or "template" in fault.sentence
    assert not any(event.row for event in events)


OPENINGS = """
from freesolo.environments import EnvironmentMultiTurn, EnvironmentStepResult, RewardResult


class Boards(EnvironmentMultiTurn):
    tries = {}

    def start_episode(self, example, prompt_text):
        self.tries[example.input] = self.tries.get(example.input, 0) + 1
        if self.tries[example.input] <= example.metadata["broken"]:
            raise ConnectionError("no board")
        return [{"role": "user", "content": example.input}]

    def max_episode_turns(self, example):
        return 1

    def step_episode(self, example, messages, assistant_response):
        return EnvironmentStepResult(done=True)

    def score_episode(self, example, episode):
        return RewardResult(score=1.0)


def load_environment(**params):
    return Boards()
"""
NEVER = 100
ROW_2 = "the environment failed while building the prompt of row 2: ConnectionError: no board"
OPENED = {
    "one row costs itself": (
        Algorithm.GRPO,
        [0, NEVER, 0],
        [
            (ROW_2, False),
            (
                "1 of 3 rows have an episode that cannot be opened; a run of GRPO goes on, and "
                "learns nothing from such an episode",
                False,
            ),
        ],
    ),
    "a row that opens at the second try": (Algorithm.GRPO, [0, 1, 0], []),
    "SFT opens every row": (Algorithm.SFT, [0, NEVER, 0], [(ROW_2, True)]),
    "two of three rows cost the run": (
        None,
        [0, NEVER, NEVER],
        [
            (ROW_2, False),
            (ROW_2.replace("row 2", "row 3"), True),
            (
                "2 of 3 rows have an episode that cannot be opened; a run of GRPO ends when these "
                "are more than a tenth of its rows",
                True,
            ),
        ],
    ),
}


@pytest.mark.parametrize("case", OPENED)
def test_an_episode_that_cannot_be_opened_is_what_it_is_to_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
):
    monkeypatch.setattr(openings, "_PAUSES_SECONDS", (0.0,))
    algorithm, broken, expected = OPENED[case]
    (tmp_path / "dataset").mkdir()
    (tmp_path / "environment.py").write_text(OPENINGS)
    records = [
        json.dumps({"input": str(number), "output": "7", "metadata": {"broken": tries}})
        for number, tries in enumerate(broken)
    ]
    (tmp_path / "dataset" / "train.jsonl").write_text("\n".join(records))
    events = io.StringIO()
    task = EnvCheckTask(folder=str(tmp_path), split="train", scored=0, algorithm=algorithm)
    check_environment(CheckReporter(task, events))
    lines = map(CheckEvent.model_validate_json, events.getvalue().splitlines())
    faults = [event.fault for event in lines if event.fault]
    assert len(faults) == len(expected)
    line = 1 + OPENINGS.splitlines().index('            raise ConnectionError("no board")')
    for fault, (sentence, fatal) in zip(faults, expected, strict=True):
        assert fault.sentence.startswith(sentence)
        assert fault.place == (f"environment.py:{line}" if "ConnectionError" in sentence else "")
        assert fault.fatal == fatal
