"""Episodes are played turn by turn together, with any sampler."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from flashrun_trainer.data.environment import load_folder
from flashrun_trainer.data.episode_player import EpisodePlayer
from flashrun_trainer.data.prompts import make_prompt
from tests.trainer.data.test_held_out import Package
from tests.trainer.pods import resolved

pytestmark = pytest.mark.trainer

TALK = """
from freesolo.environments import EnvironmentMultiTurn, EnvironmentStepResult, RewardResult


class Talk(EnvironmentMultiTurn):
    def start_episode(self, example, prompt_text):
        return [{"role": "user", "content": str(example.input)}]

    def max_episode_turns(self, example):
        return int(example.input)

    def step_episode(self, example, messages, assistant_response):
        if example.input == "3":
            return EnvironmentStepResult(messages=({"role": "user", "content": "long " * 200},))
        return EnvironmentStepResult(done=False, messages=({"role": "user", "content": "On."},))

    def score_episode(self, example, episode):
        return RewardResult(score=1.0)


def load_environment(**params):
    return Talk()
"""


def test_every_episode_has_its_turns_and_the_others_do_not_wait(tmp_path: Path, tiny_model: Path):
    from flashrun_trainer.model import load_tokenizer

    package = Package(tmp_path)
    (package.folder / "environment.py").write_text(TALK)
    environment, tokenizer = load_folder(package.folder, package.spec), load_tokenizer(tiny_model)
    run = resolved("grpo")
    prompts = [
        make_prompt(environment, tokenizer, example, False) for example in environment.examples
    ]
    asked: list[tuple[int, ...]] = []

    def sample(indices: Sequence[int], ids: list[list[int]]) -> list[list[int]]:
        asked.append(tuple(indices))
        for index, row in zip(indices, ids, strict=True):
            opening = prompts[index].ids
            assert row[: len(opening)] == opening
        return [tokenizer("Yes<|im_end|>")["input_ids"] for _ in indices]

    player = EpisodePlayer(environment, tokenizer, run, longest=100, sharded=False)
    episodes = player.play(prompts, sample)
    # The third episode ends early: the environment's reply leaves no room for an answer.
    assert asked == [(0, 1, 2), (1,)]
    assert [len(episode.last_ids) for episode in episodes] == [1, 2, 1]
    assert [str(episode.response) for episode in episodes] == ["Yes"] * 3
