"""Evaluations of a run: what they measure, and that training does not notice them."""

import json
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import Evaluation, Manifest, Result, Scale
from flashrun_trainer import trl_arguments
from tests.trainer import forks, stand_in_engine
from tests.trainer.pods import TrainerPod, Workshop, evaluated, resolved, rows, sums

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

HELD_OUT = rows(*((f"What is {left} plus 70?", str(left + 70)) for left in range(12)))

SFT: dict[str, Any] = {"max_steps": 6, "save_every": 3}
GRPO: dict[str, Any] = {"steps": 4, "save_every": 2}

DRAWS = """
import random

import numpy
import torch
from freesolo.environments import EnvironmentSingleTurn, RewardResult

module_random = random.Random(7)


class Draws(EnvironmentSingleTurn):
    max_score_concurrency = 1

    def __init__(self):
        self.calls = 0

    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": f"{example.input} {random.random()}"}]

    def score_response(self, example, response_text):
        self.calls += 1
        torch.manual_seed(self.calls)
        drawn = random.random() + numpy.random.random() + float(torch.rand(())) + self.calls % 5
        return RewardResult(score=drawn + module_random.random() + len(response_text) % 7)


def load_environment(**params):
    random.random()
    return Draws()
"""
"""Draws from every generator, seeds one, and counts: each call changes the next one."""


def evaluations(pod: TrainerPod) -> dict[int, dict[str, float]]:
    """The metrics of every evaluation by its step, without their prefix."""
    found = [
        (row.step, {name[5:]: value for name, value in row.values.items() if name[:5] == "eval/"})
        for row in pod.metrics
    ]
    steps = [step for step, values in found if values]
    assert len(steps) == len(set(steps)), steps
    return {step: values for step, values in found if values}


def result_of(pod: TrainerPod) -> Evaluation | None:
    """What the run's result says about its evaluations."""
    return pod.store.get_json(names.result_key(pod.prefix), Result).evaluation


def test_a_run_is_evaluated_before_training_at_each_save_and_at_its_end(workshop: Workshop):
    run = resolved("sft", eval=evaluated(), **SFT)
    pod = workshop.pod(run, sums(eval=HELD_OUT))
    assert pod.train() == Exit.DONE

    measured = evaluations(pod)
    assert list(measured) == [0, 3, 6]
    wanted = {"score", "digits", "right", "loss", "token_accuracy", "examples", "unscored"}
    assert all(values.keys() == wanted | {"seconds"} for values in measured.values())
    assert [values["examples"] for values in measured.values()] == [8, 8, 8]
    # The history is in the order of what happened, and the steps have no time of evaluations.
    assert [row.step for row in pod.metrics] == [0, 1, 2, 3, 3, 4, 5, 6, 6]
    # It learns to answer with digits.
    assert measured[6]["digits"] > measured[0]["digits"]
    assert measured[6]["loss"] < measured[3]["loss"] < measured[0]["loss"]

    manifests = {
        step: pod.store.get_json(
            names.step_prefix(pod.prefix, 1, step) + names.MANIFEST, Manifest
        ).evaluation
        for step in (3, 6)
    }
    assert {step: found.score for step, found in manifests.items()} == {
        step: measured[step]["score"] for step in (3, 6)
    }
    compared = result_of(pod)
    assert compared.baseline.score == measured[0]["score"]
    assert (compared.last.step, compared.last.score) == (6, measured[6]["score"])
    assert (compared.examples, compared.unscored) == (8, 0)

    answers = pod.store.get_bytes(names.eval_rollouts_key(pod.prefix, 6)).decode().splitlines()
    assert [json.loads(line)["score"] for line in answers] != []
    assert sum(json.loads(line)["score"] for line in answers) / 8 == measured[6]["score"]

    # A run that begins with its adapter has its last score as baseline.
    following = resolved(
        "sft", eval=evaluated(every=1), max_steps=1, init_from_adapter=pod.as_source()
    )
    warm = workshop.pod(following, sums(eval=HELD_OUT))
    assert warm.train() == Exit.DONE
    for name in wanted:
        assert evaluations(warm)[0][name] == pytest.approx(measured[6][name])


@pytest.mark.parametrize("algorithm", ["sft", "grpo", "grpo with vLLM"])
def test_evaluations_change_no_bit_of_what_is_learned(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, algorithm: str
):
    """Samples are drawn at a temperature, dropout draws in each step, and the scorer draws."""
    if algorithm == "grpo with vLLM":
        stand_in_engine.install(monkeypatch)
    lora = trl_arguments.lora
    monkeypatch.setattr(trl_arguments, "lora", lambda *given: lora(*given) | {"lora_dropout": 0.2})
    settings = SFT if algorithm == "sft" else GRPO
    weights, scores = [], []
    for changes in ({}, {"eval": evaluated(samples=2, every=1)}):
        run = resolved(algorithm.split()[0], **settings, **changes)
        pod = workshop.pod(run, sums(environment=DRAWS, eval=HELD_OUT))
        assert pod.train() == Exit.DONE
        weights.append(pod.weights)
        scores.append(pod.values("loss" if algorithm == "sft" else "reward"))
    assert evaluations(pod).keys() == {0, *range(1, len(scores[0]) + 1)}
    assert {"pass@1", "pass@2"} <= evaluations(pod)[1].keys()
    assert scores[0] == scores[1]
    assert weights[0] == weights[1]


def test_evaluations_on_two_processes_change_nothing_and_measure_the_same(workshop: Workshop):
    pods = []
    settings = {"eval": evaluated(max_examples=7)}
    for ranks, changes in ((2, {}), (2, settings), (1, settings)):
        scale = {"scale": Scale(gpus=ranks)} if ranks > 1 else {}
        run = resolved("grpo", steps=3, save_every=2, **changes, **scale)
        pods.append(workshop.pod(run, sums(eval=HELD_OUT)))
        assert forks.trained(pods[-1]) == Exit.DONE, pods[-1].output
    plain, watched, alone = pods
    assert plain.weights == watched.weights
    assert list(evaluations(watched)) == [0, 2, 3]
    first, single = evaluations(watched)[0], evaluations(alone)[0]
    assert first["examples"] == 7
    for name in first.keys() - {"seconds"}:
        assert first[name] == pytest.approx(single[name], rel=1e-5), name


def test_evaluations_answer_fewer_examples_rather_than_take_too_long(workshop: Workshop):
    settings = evaluated(max_examples=12, may_shrink=True, every=1)
    pod = workshop.pod(resolved("sft", eval=settings, **SFT), sums(eval=HELD_OUT))
    assert pod.train() == Exit.DONE
    # Steps of a tiny model take milliseconds: there is only time for the first and the last one.
    assert list(evaluations(pod)) == [0, 6]


def test_a_metric_that_does_not_exist_is_named_after_the_first_evaluation(workshop: Workshop):
    run = resolved("sft", eval=evaluated(metric="acuracy"), **SFT)
    pod = workshop.pod(run, sums(eval=HELD_OUT))
    assert pod.train() == Exit.CONFIG
    assert pod.termination.reason == "EvalMetricMissing"
    assert "digits, loss, right, score, token_accuracy" in pod.termination.message
    assert pod.steps() == []


FAILS = """
from freesolo.environments import EnvironmentSingleTurn, RewardResult


class Fails(EnvironmentSingleTurn):
    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": str(example.input)}]

    def score_response(self, example, response_text):
        if "plus 70" in example.input and int(example.output) % 2:
            raise ConnectionError("the judge is away")
        return RewardResult(score=float(len(response_text) % 3))


def load_environment(**params):
    return Fails()
"""


def test_answers_that_the_scorer_fails_on_are_counted_and_end_no_run(workshop: Workshop):
    run = resolved("grpo", eval=evaluated(), **GRPO)
    pod = workshop.pod(run, sums(environment=FAILS, eval=HELD_OUT))
    assert pod.train() == Exit.DONE
    assert [values["unscored"] for values in evaluations(pod).values()] == [4, 4, 4]
    compared = result_of(pod)
    assert compared.unscored == 4
    # Half of the examples say too little to be compared.
    assert (compared.baseline, compared.best) == (None, None)


TALK = """
from freesolo.environments import EnvironmentMultiTurn, EnvironmentStepResult, RewardResult


class Talk(EnvironmentMultiTurn):
    max_score_concurrency = 1

    def start_episode(self, example, prompt_text):
        return [{"role": "user", "content": str(example.input)}]

    def max_episode_turns(self, example):
        return 1 + int(example.output) % 3

    def step_episode(self, example, messages, assistant_response):
        if example.output == "72":
            raise ValueError("lost")
        return EnvironmentStepResult(done=False, messages=({"role": "user", "content": "Go on."},))

    def score_episode(self, example, episode):
        return RewardResult(score=float(len(episode.messages)))


def load_environment(**params):
    return Talk()
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_episodes_are_played_to_their_end(workshop: Workshop, ranks: int):
    """With two ranks, the environment's calls take turns, and seven examples are unequal shares."""
    scale = {"scale": Scale(gpus=ranks)} if ranks > 1 else {}
    settings = evaluated(max_examples=7, max_tokens=4)
    run = resolved("grpo", steps=1, save_every=1, eval=settings, **scale)
    pod = workshop.pod(run, sums(environment=TALK, eval=HELD_OUT))
    assert forks.trained(pod) == Exit.DONE, pod.output
    # Turns of two messages each after the opening: 2, 3, 2, 3, 1 and 2 of them.
    values = evaluations(pod)[0]
    assert (values["score"], values["unscored"]) == (pytest.approx(1 + 2 * 13 / 6), 1)


@pytest.mark.sharding
def test_a_sharded_model_is_evaluated_like_a_whole_one(workshop: Workshop):
    """The ranks have four and three examples, and one example has no answer of its own."""
    unlabelled = json.dumps({"input": "What is 9 plus 9?"}) + "\n"
    held_out = "".join(HELD_OUT.splitlines(keepends=True)[:6]) + unlabelled
    found = []
    for scale in (Scale(), Scale(gpus=2, sharded=True)):
        run = resolved("sft", max_steps=1, eval=evaluated(max_examples=7), scale=scale)
        pod = workshop.pod(run, sums(eval=held_out))
        assert forks.trained(pod) == Exit.DONE, pod.output
        found.append(evaluations(pod)[0])
    whole, sharded = found
    assert whole["examples"] == 7
    for name in whole.keys() - {"seconds"}:
        assert sharded[name] == pytest.approx(whole[name], rel=1e-4), name
