"""Openings of episodes before training, and the prompts that a run has with them."""

import random
import threading
from pathlib import Path
from typing import Any

import pytest
from freesolo.environments import EnvironmentMultiTurn

from flashrun_trainer.data import openings
from flashrun_trainer.data.dataset import load_examples
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.data.prompts import make_episode_prompts
from flashrun_trainer.pod.distributed import ProcessGroup
from flashrun_trainer.pod.trainer_errors import TrainerError

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


class Boards(EnvironmentMultiTurn):
    """Opens the episodes of ``broken`` rows in as many tries as they say."""

    reward_timeout_seconds = 0.3

    def __init__(self, **broken: int) -> None:
        self.broken = broken

    def start_episode(self, example: Any, prompt_text: str) -> list[dict[str, str]]:
        drawn = random.random()
        if self.broken.get(example.input, 0) > 0:
            self.broken[example.input] -= 1
            if example.input.startswith("hang"):
                threading.Event().wait()
            raise ConnectionError("no board")
        return [{"role": "user", "content": f"{example.input} {drawn}"}]

    def max_episode_turns(self, example: Any) -> int:
        return 1

    def step_episode(self, example: Any, messages: Any, assistant_response: str) -> Any: ...

    def score_episode(self, example: Any, episode: Any) -> Any: ...


NEVER = 10**6


def opened(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    *inputs: str,
    group: ProcessGroup | None = None,
    **broken: int,
) -> tuple[list[str], str]:
    """The text that opens each row, and the warning."""
    from flashrun_trainer.model import load_tokenizer

    monkeypatch.setattr(openings, "_PAUSES_SECONDS", (0.0, 0.0))
    examples = load_examples(None, {"records": [{"input": text} for text in inputs]}, None)
    environment = Environment(Boards(**broken), examples, "", process_group=group or ProcessGroup())
    random.seed(1)
    found = make_episode_prompts(environment, load_tokenizer(tiny_model), examples, False)
    assert [prompt.example for prompt in found.prompts] == examples
    return [prompt.messages[-1]["content"] for prompt in found.prompts], found.remark


def test_an_opening_that_fails_is_tried_again_and_draws_the_same(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    undisturbed = opened(tiny_model, monkeypatch, "a", "b", "c")
    assert opened(tiny_model, monkeypatch, "a", "b", "c", a=1, b=1) == undisturbed
    assert undisturbed[1] == ""


def test_a_row_whose_episode_cannot_be_opened_keeps_its_place(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    texts, remark = opened(tiny_model, monkeypatch, "a", "b", "c", b=NEVER)
    assert [text.partition(" ")[0] for text in texts] == ["a", "b", "c"]
    assert texts[1] == "b"
    assert remark == (
        "1 of 3 rows have an episode that could not be opened before training: the environment "
        "failed while building the prompt of row 2: ConnectionError: no board"
    )


def test_all_ranks_have_the_prompts_that_one_could_not_open(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    class Second(ProcessGroup):
        def all_gather(self, value: Any) -> list[Any]:
            return [{1: "row 2: no board"}, value]

    texts, remark = opened(tiny_model, monkeypatch, "a", "b", "c", group=Second())
    assert texts[1] == "b"
    assert remark.endswith("row 2: no board")


TOO_MANY = {
    "the only one": ("a", {"a": NEVER}),
    "two of three": ("abc", {"a": NEVER, "c": NEVER}),
    "three of twenty": ("abcdefghijklmnopqrst", {"a": NEVER, "c": NEVER, "e": NEVER}),
}


@pytest.mark.parametrize("case", TOO_MANY)
def test_an_environment_that_opens_too_few_episodes_ends_the_run(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, case: str
):
    inputs, broken = TOO_MANY[case]
    with pytest.raises(TrainerError, match="ConnectionError: no board"):
        opened(tiny_model, monkeypatch, *inputs, **broken)


def test_two_openings_that_hang_end_the_run(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    inputs = ["hang1", "hang2", *"abcdefghijklmnopqrst"]
    texts, _ = opened(tiny_model, monkeypatch, *inputs, hang1=NEVER)
    assert texts[0] == "hang1"
    with pytest.raises(TrainerError, match="row 2: CallTimeoutError"):
        opened(tiny_model, monkeypatch, *inputs, hang1=NEVER, hang2=NEVER)
