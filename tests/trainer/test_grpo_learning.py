"""What GRPO learns of a group, computed by hand: failed, cut off and equal completions.

The environment's code watches the trainer, in every process: what was sampled and scored, and what
advantages and masks the loss gets. It also chooses the engine that samples there.
"""

import json
from itertools import chain, groupby
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import Scale
from tests.trainer import forks
from tests.trainer.engines import ENGINES
from tests.trainer.pods import TrainerPod, Workshop, resolved, sums

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

WATCH = """
import json
import os
from functools import wraps
from pathlib import Path

from freesolo.environments import (
    EnvironmentMultiTurn, EnvironmentSingleTurn, EnvironmentStepResult, RewardResult,
)
from flashrun_trainer.grpo import GrpoTrainer, RewardFunction
from tests.trainer import engines

engines.install("[ENGINE]")
STEP = {}
reward, score = RewardFunction.reward, RewardFunction._score
generate = GrpoTrainer._generate_and_score_completions


@wraps(reward)
def watched_reward(self, prompts, completion_ids, trainer_state, episode=None, **more):
    STEP["ends"] = sorted(self._end_token_ids)
    STEP["ids"] = completion_ids
    masks = [[1] * len(ids) for ids in completion_ids]
    STEP["sampled"] = masks if episode is None else [played.mask for played in episode]
    return reward(self, prompts, completion_ids, trainer_state, episode, **more)


def watched_score(self, *given):
    scores = score(self, *given)
    STEP["scores"] = [None if score.error else score.reward for score in scores]
    return scores


def watched_generate(self, inputs):
    batch = generate(self, inputs)
    STEP["advantages"] = batch["advantages"].tolist()
    STEP["mask"] = (batch["completion_mask"] * batch["tool_mask"]).tolist()
    with Path(__file__).with_name(f"watched-{os.environ.get('RANK', 0)}.jsonl").open("a") as file:
        file.write(json.dumps(STEP) + chr(10))
    return batch


RewardFunction.reward, RewardFunction._score = watched_reward, watched_score
GrpoTrainer._generate_and_score_completions = watched_generate


def judge(text):
    kind = sum(map(ord, text)) % 12
    if kind == 0:
        raise ConnectionError("the judge is away")
    if kind == 1:
        return None
    if kind == 2:
        return RewardResult(score=float("nan"))
    if kind == 3:
        return RewardResult(score=1.0, error="the judge did not understand")
    return RewardResult(score=-[SPREAD][kind % 3])

"""
SINGLE = """
class Environment(EnvironmentSingleTurn):
    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": str(example.input)}]

    def score_response(self, example, response_text):
        return judge(response_text)


def load_environment(**params):
    return Environment()
"""
EPISODES = """
class Environment(EnvironmentMultiTurn):
    def start_episode(self, example, prompt_text):
        return [{"role": "user", "content": str(example.input)}]

    def max_episode_turns(self, example):
        return 2

    def step_episode(self, example, messages, assistant_response):
        if len(messages) > 2 and len(assistant_response) % 9 == 1:
            raise TimeoutError("the board is away")
        return EnvironmentStepResult(messages=[{"role": "user", "content": "Again."}])

    def score_episode(self, example, episode):
        return judge(episode.response_text)


def load_environment(**params):
    return Environment()
"""
KINDS = {"single turns": SINGLE, "episodes": EPISODES}
CASES = [
    (engine, kind, world_size)
    for engine in ENGINES
    for kind in KINDS
    for world_size in (1, 2)
    # Where a completion comes from changes little of what is learned: not every combination.
    if engine == "transformers"
    or (engine == "vllm" and world_size == 1)
    or (engine == "stand-in" and (world_size == 2) == (kind == "single turns"))
]
on_engines = pytest.mark.parametrize(("engine", "kind", "world_size"), CASES)
SPREAD, FLAT = "0.7, 0.1, 0.35", "100.1, 100.1, 100.1"
GROUP = 8
LIMIT = 24
"""max_tokens: so many that the tiny model ends some answers, and does not end others."""


def trained(
    workshop: Workshop, engine: str, kind: str, world_size: int, spread: str, **changes: Any
) -> TrainerPod:
    run = resolved(
        "grpo",
        scale=Scale(gpus=world_size),
        **{"steps": 3, "group_size": GROUP, "max_tokens": LIMIT, "max_length": 256, **changes},
    )
    source = WATCH.replace("[SPREAD]", f"[{spread}]").replace("[ENGINE]", engine) + KINDS[kind]
    pod = workshop.pod(run, sums(environment=source))
    assert forks.trained(pod) == Exit.DONE, pod.output
    disagreements = pod.values("sampling/disagreement")
    assert disagreements == pytest.approx([0.0] * (3 * (engine != "transformers")), abs=1e-2)
    return pod


def watched(pod: TrainerPod) -> list[dict[str, Any]]:
    """What was watched in every step; completions of all processes in order."""
    ranks = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(pod.inside.environment.glob("watched-*.jsonl"))
    ]
    assert len(ranks) == pod.run.scale.gpus
    return [
        {name: list(chain(*(rank[name] for rank in step))) for name in step[0]}
        for step in zip(*ranks, strict=True)
    ]


def is_ended(ids: list[int], sampled: list[int], ends: list[int]) -> bool:
    """Whether every turn of the model ends with a token that ends a turn."""
    turns = groupby(zip(ids, sampled, strict=True), key=lambda pair: pair[1])
    return all([token for token, _ in turn][-1] in ends for is_own, turn in turns if is_own)


@pytest.mark.parametrize("masked", [False, True], ids=["all learned", "cut off masked"])
@on_engines
def test_what_is_not_judged_or_cut_off_takes_no_part_in_its_group(
    workshop: Workshop, engine: str, kind: str, world_size: int, masked: bool
):
    stops = () if masked else ("\n\n",)
    pod = trained(workshop, engine, kind, world_size, SPREAD, stop_sequences=stops)
    absent, cut_off, losses = 0, 0, []
    steps = watched(pod)
    for step in steps:
        ended = [
            not masked or is_ended(ids, sampled, step["ends"])
            for ids, sampled in zip(step["ids"], step["sampled"], strict=True)
        ]
        learned = [
            score is not None and whole for score, whole in zip(step["scores"], ended, strict=True)
        ]
        absent += step["scores"].count(None)
        cut_off += ended.count(False)
        expected = []
        for begin in range(0, 2 * GROUP, GROUP):
            of_group = range(begin, begin + GROUP)
            rewards = [step["scores"][index] for index in of_group if learned[index]]
            mean = sum(rewards) / max(len(rewards), 1)
            flat = len(set(rewards)) < 2
            for index in of_group:
                counts = learned[index] and not flat
                expected.append(step["scores"][index] - mean if counts else 0.0)
        assert step["advantages"] == pytest.approx(expected, abs=1e-7)
        exact = [
            value for value, sure in zip(step["advantages"], expected, strict=True) if not sure
        ]
        assert exact == [0.0] * len(exact)
        tokens = []
        for sampled, own, is_learned in zip(step["sampled"], step["mask"], learned, strict=True):
            padded = [*sampled, *[0] * (len(own) - len(sampled))]
            assert own == ([int(is_learned) * token for token in padded])
            tokens.append(sum(own))
        # Every token weighs 1 / (completions x max_tokens), and ratios are 1.
        products = (a * b for a, b in zip(expected, tokens, strict=True))
        losses.append(-sum(products) / (2 * GROUP * LIMIT))
    assert pod.values("loss") == pytest.approx(losses, abs=1e-4)
    assert absent > 0
    assert (cut_off > 0) == masked
    judged = [[score for score in step["scores"] if score is not None] for step in steps]
    means = [sum(scores) / len(scores) for scores in judged]
    assert pod.values("reward") == pytest.approx(means, rel=1e-9)
    shares = [step["scores"].count(None) / (2 * GROUP) for step in steps]
    assert pod.values("reward_errors") == pytest.approx(shares)
    kinds = {"raised", "invalid", "reported", "episode"}
    counted = sum(sum(pod.values(f"reward_failed/{kind}")) for kind in kinds)
    assert counted == absent
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    assert "which are not learned: in row " in log


def lora_b_is_zero(pod: TrainerPod) -> bool:
    from safetensors.torch import load

    weights = load(pod.published("adapter_model.safetensors"))
    return all(not weight.any() for name, weight in weights.items() if "lora_B" in name)


@on_engines
def test_equal_rewards_of_what_is_learned_leave_every_weight_as_it_was(
    workshop: Workshop, engine: str, kind: str, world_size: int
):
    pod = trained(workshop, engine, kind, world_size, FLAT)
    assert lora_b_is_zero(pod)
    steps = watched(pod)
    assert {value for step in steps for value in step["advantages"]} == {0.0}
    assert any(None in step["scores"] for step in steps)
    assert pod.values("loss") == pod.values("grad_norm") == [0.0] * 3
    assert pod.values("reward") == pytest.approx([-100.1] * 3, rel=1e-15)
    assert pod.values("reward_std") == [0.0] * 3
    assert pod.values("frac_reward_zero_std") == [1.0] * 3


@pytest.mark.parametrize("engine", ["transformers", "stand-in"])
def test_a_step_without_a_learned_token_has_no_kl_and_no_entropy(workshop: Workshop, engine: str):
    changes = {"stop_sequences": (), "max_tokens": 2, "kl_penalty_coef": 0.5}
    pod = trained(workshop, engine, "single turns", 1, FLAT, **changes)
    assert lora_b_is_zero(pod)
    learning = [any(map(any, step["mask"])) for step in watched(pod)]
    assert False in learning
    rows = [(row.values.get("kl"), row.values.get("entropy")) for row in pod.metrics]
    assert [row != (None, None) for row in rows] == learning
    assert [bool(number) for number in pod.values("completions/learned")] == learning


def test_a_process_without_a_learned_row_takes_part_in_the_step(workshop: Workshop):
    """The other process learns, and both end with one adapter: no gradient is lost or doubled."""
    source = SINGLE.replace(
        "return judge(response_text)",
        "if sum(map(ord, str(example.input))) % 2:\n"
        '            raise ConnectionError("the judge is away")\n'
        "        return judge(response_text)",
    )
    code = WATCH.replace("[SPREAD]", f"[{SPREAD}]").replace("[ENGINE]", "transformers") + source
    run = resolved(
        *("grpo",), scale=Scale(gpus=2), steps=4, group_size=GROUP, max_tokens=LIMIT, max_length=256
    )
    pod = workshop.pod(run, sums(environment=code))
    assert forks.trained(pod) == Exit.DONE, pod.output
    by_rank = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(pod.inside.environment.glob("watched-*.jsonl"))
    ]
    learning = [[any(map(any, step["mask"])) for step in rank] for rank in by_rank]
    assert len(learning) == 2
    assert any(first != second for first, second in zip(*learning, strict=True)), learning
    losses = [
        -sum(
            advantage * sum(mask)
            for step in steps
            for advantage, mask in zip(step["advantages"], step["mask"], strict=True)
        )
        / (2 * GROUP * LIMIT)
        for steps in zip(*by_rank, strict=True)
    ]
    assert pod.values("loss") == pytest.approx(losses, abs=1e-4)
    assert not lora_b_is_zero(pod)
