"""GRPO killed in any epoch, and resumed on as many processes or on others: same order of prompts.

Six prompts, two of them in a step: an epoch has three steps.
"""

import json
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import Scale
from flashrun_trainer.data.prompt_order import PromptOrder
from tests.trainer import forks
from tests.trainer.faults.test_kills import assert_the_same_end, is_request
from tests.trainer.pods import HEAD, TrainerPod, Workshop, resolved, resumed, rows, sums
from tests.trainer.storage import between

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

EPOCH = 3
STEPS = 18
PER_STEP = 2 * 4
"""Completions of a step: batch_size times group_size."""
PROMPTS = [f"What is {number} plus 1?" for number in range(6)]
WRITES_PROMPTS = """
    max_score_concurrency = 1

    def score_response(self, example, response_text):
        import json
        from pathlib import Path

        with Path(__file__).with_name("seen.jsonl").open("a") as file:
            file.write(json.dumps(example.input) + chr(10))
        return RewardResult(score=float(len(response_text) % 5))


def load_environment(**params):
    return Environment()
"""

SLOW = pytest.mark.slow
"""Left out unless ``-m`` names the marker: CI has no time for them."""
ROWS = [
    # in the first epoch
    pytest.param(2, 1, 1),
    pytest.param(2, 2, 2, marks=SLOW),
    pytest.param(2, 1, 2, marks=SLOW),
    pytest.param(2, 2, 1, marks=SLOW),
    pytest.param(2, 1, 4, marks=SLOW),
    # in the second epoch
    pytest.param(4, 1, 1),
    pytest.param(4, 2, 2),
    pytest.param(4, 1, 2),
    pytest.param(4, 2, 1, marks=SLOW),
    pytest.param(4, 1, 4),
    # in the fifth epoch
    pytest.param(14, 1, 1),
    pytest.param(14, 2, 2, marks=SLOW),
    pytest.param(14, 1, 2, marks=SLOW),
    pytest.param(14, 2, 1),
    pytest.param(14, 1, 4, marks=SLOW),
    # at the exact end of an epoch
    pytest.param(3, 1, 1),
    pytest.param(15, 2, 2),
    pytest.param(3, 1, 2, marks=SLOW),
    pytest.param(15, 2, 1, marks=SLOW),
    pytest.param(3, 1, 4, marks=SLOW),
]
"""The last step before the kill, the number of processes before it and after it."""


def pod_of(workshop: Workshop, world_size: int, **changes: Any) -> TrainerPod:
    run = resolved("grpo", steps=STEPS, max_tokens=4, scale=Scale(gpus=world_size), **changes)
    data = rows(*((prompt, "1") for prompt in PROMPTS))
    return workshop.pod(run, sums(environment=HEAD + WRITES_PROMPTS, train=data))


def asked(pod: TrainerPod) -> list[list[str]]:
    """The prompts of every step that a pod has scored whole, sorted."""
    lines = (pod.inside.environment / "seen.jsonl").read_text().splitlines()
    prompts = [json.loads(line) for line in lines]
    whole = range(0, len(prompts) - PER_STEP + 1, PER_STEP)
    return [sorted(set(prompts[begin : begin + PER_STEP])) for begin in whole]


@pytest.fixture(scope="module")
def undisturbed(workshop: Workshop) -> dict[int, TrainerPod]:
    """A run by one process and a run by two that nothing happened to."""
    pods = {world_size: pod_of(workshop, world_size, save_every=STEPS) for world_size in (1, 2)}
    assert [forks.trained(pod) for pod in pods.values()] == [Exit.DONE] * 2
    return pods


def test_every_epoch_asks_every_prompt_once_in_an_order_of_its_own(
    undisturbed: dict[int, TrainerPod],
):
    steps = asked(undisturbed[1])
    assert steps == asked(undisturbed[2])
    epochs = [list(chain(*steps[begin : begin + EPOCH])) for begin in range(0, STEPS, EPOCH)]
    assert [sorted(epoch) for epoch in epochs] == [PROMPTS] * 6
    order = PromptOrder(len(PROMPTS), 2, STEPS, seed=42)
    assert steps == [sorted(PROMPTS[row] for row in order.step(step)) for step in range(STEPS)]
    assert undisturbed[1].values("epoch") == [step / EPOCH for step in range(1, STEPS + 1)]


@pytest.mark.parametrize(("step", "before", "after"), ROWS)
def test_a_run_that_is_killed_goes_on_with_the_prompts_of_the_undisturbed_one(
    workshop: Workshop, undisturbed: dict[int, TrainerPod], step: int, before: int, after: int
):
    with between(pod_of(workshop, before, save_every=step)) as storage:
        pod = storage.pod
        state = is_request(rf"PUT attempt-1/step-{step}/state\.json")
        with (
            storage.catching(state, True) as catch,
            forks.started(pod, every_state=True) as process,
        ):
            pod.wait_for(lambda: catch.caught.is_set() or process.exitcode is not None)
            assert process.exitcode is None, pod.output
            forks.kill(process)
        run = pod.run.model_copy(update={"scale": Scale(gpus=after)})
        following = storage.used_by(replace(pod, run=run).next())
        assert forks.trained(following) == Exit.DONE, following.output
    whole = asked(undisturbed[1])
    assert resumed(following) == (step, 1)
    assert asked(pod)[:step] == whole[:step]
    assert asked(following) == whole[step:]
    assert [row.step for row in following.metrics] == list(range(1, STEPS + 1))
    if before == after:
        assert_the_same_end(following, undisturbed[after], "reward")
    assert names.result_key("") in following.keys
