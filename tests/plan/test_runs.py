"""One run at every stage: each file of tests/runs/<name>/ is made from the one before it."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashrun.api import resource as runs
from flashrun.api.exits import Exit
from flashrun.api.records import Batching, CheckpointEvaluation, Manifest
from flashrun.cli.config.compose import ConfigFile, compose
from tests.plan import worlds
from tests.plan.worlds import World, checkpoint, make_pod

RUNS = Path(__file__).parents[1] / "runs"
FOLDER, WIDE, EVALUATED = (RUNS / name for name in ("sums-grpo", "two-nodes-sft", "evaluated-sft"))
NAMED = worlds.lookup(SERVICE_API_KEY=f"{worlds.NAME}-env")


def golden(name: str, actual: Any, folder: Path = FOLDER) -> None:
    """Compare ``actual`` with a file of the folder, or write the file when asked to."""
    path = folder / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump(actual, sort_keys=False, width=100))
    assert yaml.safe_load(path.read_text()) == actual


def spec_in(folder: Path, *refs: runs.SecretRef) -> runs.FlashRunSpec:
    file = folder / "config.toml"
    composed = compose([ConfigFile(file.name, file.read_bytes())])
    return runs.FlashRunSpec.from_config(composed.config, refs)


@pytest.fixture
def spec() -> runs.FlashRunSpec:
    return spec_in(FOLDER, runs.SecretRef(name=f"{worlds.NAME}-env"))


@pytest.fixture
def submitted(spec: runs.FlashRunSpec) -> World:
    return World(worlds.make_run().model_copy(update={"spec": spec}))


@pytest.fixture
def training(submitted: World) -> World:
    started = submitted.seeing(secrets=NAMED).settled()
    return started.seeing(pods=(make_pod(),)).stored(
        heartbeat=worlds.heartbeat(20, total=40),
        claims=(worlds.claim(),),
        checkpoints=(checkpoint(10),),
    )


def test_a_config_becomes_a_flashrun(spec: runs.FlashRunSpec) -> None:
    golden("flashrun.yaml", runs.manifest(worlds.NAME, worlds.NAMESPACE, spec))


def test_a_flashrun_becomes_objects(submitted: World) -> None:
    golden("objects.yaml", list(submitted.seeing(secrets=NAMED).decide().apply))


def test_a_missing_secret_is_a_sentence(submitted: World) -> None:
    golden("status-waiting.yaml", submitted.decide().status.to_patch())


def test_a_pod_and_its_storage_become_a_status(training: World) -> None:
    golden("status-running.yaml", training.decide().status.to_patch())


def test_a_result_and_an_adapter_are_a_success(training: World) -> None:
    ended = make_pod(exit_code=0)
    done = (
        training.settled()
        .seeing(pods=(ended,))
        .stored(
            checkpoints=(checkpoint(10), checkpoint(40)),
            heartbeat=worlds.heartbeat(40, total=40, activity="Uploading"),
            result=worlds.result(),
            adapter=worlds.ADAPTER,
        )
    )
    golden("status-succeeded.yaml", done.decide().status.to_patch())


def test_a_raising_reward_is_a_failure_with_a_hint(training: World) -> None:
    left = worlds.termination("RewardFailed", "The reward raised ZeroDivisionError on every row.")
    ended = training.settled().seeing(pods=(make_pod(exit_code=Exit.ENVIRONMENT),))
    failed = ended.stored(result=worlds.result(Exit.ENVIRONMENT, left))
    golden("status-failed.yaml", failed.decide().status.to_patch())


# --- the same on two nodes ------------------------------------------------------------------------


@pytest.fixture
def wide() -> World:
    run = worlds.make_run().model_copy(update={"spec": spec_in(WIDE)})
    return World(run, platform=worlds.NODES)


@pytest.fixture
def training_wide(wide: World) -> World:
    batching = Batching(world_size=4, micro_batch_size=2, gradient_accumulation_steps=4)
    pods = (make_pod(index=0), make_pod("pod-2", index=1, node="node-2"))
    return (
        wide.settled()
        .seeing(pods=pods)
        .stored(
            heartbeat=worlds.heartbeat(20, total=40, batching=batching),
            claims=(worlds.claim(),),
            checkpoints=(checkpoint(10),),
        )
    )


def test_a_model_for_two_nodes_becomes_an_indexed_job_and_a_service(wide: World) -> None:
    golden("flashrun.yaml", runs.manifest(worlds.NAME, worlds.NAMESPACE, wide.run.spec), WIDE)
    golden("objects.yaml", list(wide.decide().apply), WIDE)


def test_the_leaders_record_becomes_the_status_of_both_pods(training_wide: World) -> None:
    golden("status-running.yaml", training_wide.decide().status.to_patch(), WIDE)


def test_a_member_that_fails_first_is_named(training_wide: World) -> None:
    termination = worlds.termination("DataInvalid", "Row 7 has no completion.")
    member = make_pod("pod-2", index=1, node="node-2", exit_code=Exit.DATA, termination=termination)
    leader = make_pod(index=0, exit_code=Exit.NCCL, ended=timedelta(seconds=1))
    [job] = training_wide.observed.jobs
    failed = training_wide.settled().seeing(pods=(leader, member), jobs=(worlds.failed_job(job),))
    golden("status-failed.yaml", failed.decide().status.to_patch(), WIDE)


# --- a run that is evaluated ----------------------------------------------------------------------


@pytest.fixture
def evaluated() -> World:
    return World(worlds.make_run().model_copy(update={"spec": spec_in(EVALUATED)}))


def scored(step: int, score: float) -> Manifest:
    found = CheckpointEvaluation(metric="exact", score=score, metrics={"score": score})
    return checkpoint(step, evaluation=found)


def test_a_config_with_an_evaluation_becomes_objects(evaluated: World) -> None:
    golden(
        "flashrun.yaml", runs.manifest(worlds.NAME, worlds.NAMESPACE, evaluated.run.spec), EVALUATED
    )
    golden("objects.yaml", list(evaluated.decide().apply), EVALUATED)


def test_scores_on_held_out_examples_become_a_status(evaluated: World) -> None:
    reported = worlds.evaluation({0: 0.0625, 10: 0.4375, 20: 0.40625}, "exact")
    training = evaluated.settled().seeing(pods=(make_pod(),))
    known = training.stored(
        heartbeat=worlds.heartbeat(20, evaluation=reported),
        checkpoints=(scored(10, 0.4375), scored(20, 0.40625)),
    )
    golden("status-running.yaml", known.decide().status.to_patch(), EVALUATED)


def test_a_run_that_got_worse_than_its_base_says_so_in_one_sentence(evaluated: World) -> None:
    reported = worlds.evaluation({0: 0.421875, 10: 0.4375, 40: 0.3125}, "exact")
    ended = evaluated.settled().seeing(pods=(make_pod(exit_code=0),))
    worse = ended.stored(
        result=worlds.result(evaluation=reported),
        checkpoints=(scored(10, 0.4375), scored(40, 0.3125)),
        adapter=worlds.ADAPTER,
    )
    golden("status-succeeded.yaml", worse.decide().status.to_patch(), EVALUATED)
