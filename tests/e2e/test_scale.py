"""Runs of several processes: in one pod, in two, and with the weights spread over both."""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tests.e2e import environments
from tests.e2e.conftest import Product
from tests.e2e.pools import NODES, PAIR, SPREAD

pytestmark = pytest.mark.e2e

LONG = {"max_steps": 500, "epochs": 500, "save_every": 25}
GRPO_SEQUENCES = 8  # two prompts with four completions each
SFT_SEQUENCES = 2


class Runs(NamedTuple):
    """Names of runs by case, and what happens to the long ones meanwhile."""

    names: dict[str, str]
    disturbances: list[Future[None]]


@pytest.fixture(scope="module")
def runs(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All of them, submitted side by side; a long one is disturbed as soon as it has saved."""
    broken = environments.write(
        tmp_path_factory.mktemp("broken") / "environment", environments.BROKEN_IN_ONE_PROCESS
    )
    product.flash("env", "push", str(broken), "--name", "broken/second-process")
    cases = {
        "one pod": (PAIR, "grpo", "examples/sums", {}),
        "spread weights": (SPREAD, "sft", "examples/sums", {}),
        "broken": (NODES, "sft", "broken/second-process", {}),
        "two pods": (NODES, "sft", "examples/sums", LONG),
        "suspended": (PAIR, "sft", "examples/sums", LONG),
    }
    submitted: dict[str, str] = {}
    with ThreadPoolExecutor() as pool:
        disturbances = []
        for case, (model, algorithm, source, train) in cases.items():
            folder = tmp_path_factory.mktemp("config")
            config = environments.config(folder, source, algorithm, model=model, train=train)
            submitted[case] = product.submit(config)
            if case in DISTURBANCES:
                disturbances.append(pool.submit(disturb, product, submitted[case], case))
        yield Runs(submitted, disturbances)


def steps(product: Product, run: str, metric: str = "loss") -> list[int]:
    """The steps of a run's history, in the order they were written."""
    return [int(row["step"]) for row in product.metrics(run) if metric in row["values"]]


def delete_the_second_pod(product: Product, run: str) -> None:
    follower = f"flashrun.dev/run={run},batch.kubernetes.io/job-completion-index=1"
    product.kubectl("delete", "pod", "-l", follower, "--wait=false")


def suspend(product: Product, run: str, wanted: bool = True) -> None:
    change = json.dumps({"spec": {"control": {"suspend": wanted}}})
    product.kubectl("patch", "flashrun", run, "--type=merge", "-p", change)


DISTURBANCES = {"two pods": delete_the_second_pod, "suspended": suspend}


def disturb(product: Product, run: str, case: str) -> None:
    product.wait(run, lambda status: status.get("checkpointCount", 0) >= 1, "checkpoint")
    DISTURBANCES[case](product, run)


@pytest.fixture(scope="module")
def disturbed(runs: Runs) -> Runs:
    """The same, after each long run was disturbed."""
    for disturbance in runs.disturbances:
        disturbance.result()
    return runs


def test_a_run_that_loses_one_of_its_two_pods_goes_on_from_its_checkpoint(
    product: Product, disturbed: Runs
) -> None:
    run = disturbed.names["two pods"]
    status = product.end(run, "Succeeded")
    assert len(status["attempts"]) == 2
    assert status["attempts"][1]["fromStep"] >= LONG["save_every"]
    assert steps(product, run) == list(range(1, LONG["max_steps"] + 1))


def test_a_suspended_run_of_two_processes_saves_and_goes_on(
    product: Product, disturbed: Runs
) -> None:
    run = disturbed.names["suspended"]
    status = product.wait(
        run,
        lambda status: status["phase"] == "Suspended" and "end" in status["attempts"][-1],
        "end of its attempt",
    )
    assert status["attempts"][-1]["exitCode"] == 40
    saved = status["checkpoints"][0]["step"]
    suspend(product, run, wanted=False)

    status = product.end(run, "Succeeded")
    assert status["attempts"][-1]["fromStep"] == saved
    assert steps(product, run) == list(range(1, LONG["max_steps"] + 1))


SCALES = {
    "one pod": {"nodes": 1, "sharded": False, "sequences": GRPO_SEQUENCES, "metric": "reward"},
    "spread weights": {"nodes": 1, "sharded": True, "sequences": SFT_SEQUENCES, "metric": "loss"},
    "two pods": {"nodes": 2, "sharded": False, "sequences": SFT_SEQUENCES, "metric": "loss"},
}


@pytest.mark.parametrize(("case", "expected"), SCALES.items(), ids=SCALES.keys())
def test_two_processes_train_every_step_with_the_batch_that_was_asked_for(
    product: Product, runs: Runs, case: str, expected: dict
) -> None:
    run = runs.names[case]
    status = product.end(run, "Succeeded")
    resolved, batching = status["resolved"], status["resolved"]["batching"]

    assert resolved["gpus"] == batching["worldSize"] == 2
    assert resolved["nodes"] == expected["nodes"]
    assert resolved["sharded"] is expected["sharded"]
    at_once = batching["worldSize"] * batching["microBatchSize"]
    assert at_once * batching["gradientAccumulationSteps"] == expected["sequences"]
    total = status["progress"]["totalSteps"]
    assert steps(product, run, expected["metric"]) == list(range(1, total + 1))
    assert status["adapter"]["ref"] == run
    if expected["sharded"]:
        # Which of both depends on the PyTorch of the image.
        log = product.flash("log", run).stdout
        assert ("are sharded over 2 processes" in log) != ("every process keeps all of it" in log)


def test_an_error_of_one_process_is_the_runs_own_sentence(product: Product, runs: Runs) -> None:
    run = runs.names["broken"]
    failure = product.end(run, "Failed")["failure"]

    assert failure["exitCode"] == 70
    assert failure["reason"] == "EnvironmentFailed"
    assert "the second process has no data" in failure["message"]
    assert len(product.status(run)["attempts"]) == 1  # no other try would end otherwise
