"""One run at every stage: each file of tests/runs/<name>/ is made from the one before it."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashrun.spec import run as runs
from flashrun.spec.compose import ConfigFile, compose
from flashrun.spec.outcome import Exit
from tests.plan import worlds
from tests.plan.worlds import World, checkpoint, make_pod

FOLDER = Path(__file__).parents[1] / "runs" / "sums-grpo"
NAMED = worlds.lookup(SERVICE_API_KEY=f"{worlds.NAME}-env")


def golden(name: str, found: Any) -> None:
    """Compare ``found`` with a file of the folder, or write the file when asked to."""
    path = FOLDER / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump(found, sort_keys=False, width=100))
    assert yaml.safe_load(path.read_text()) == found


@pytest.fixture
def spec() -> runs.FlashRunSpec:
    file = FOLDER / "config.toml"
    composed = compose([ConfigFile(file.name, file.read_bytes())])
    refs = (runs.SecretRef(name=f"{worlds.NAME}-env"),)
    return runs.FlashRunSpec.from_config(composed.config, refs)


@pytest.fixture
def submitted(spec: runs.FlashRunSpec) -> World:
    return World(worlds.make_run().model_copy(update={"spec": spec}))


@pytest.fixture
def training(submitted: World) -> World:
    started = submitted.seeing(secrets=NAMED).settled()
    return started.seeing(pods=(make_pod(),)).stored(
        live=worlds.live(20, total=40), claims=(worlds.claim(),), checkpoints=(checkpoint(10),)
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
    done = training.settled().stored(
        checkpoints=(checkpoint(10), checkpoint(40)),
        live=worlds.live(40, total=40, phase="Uploading"),
        result=worlds.result(),
        adapter=worlds.ADAPTER,
    )
    golden("status-succeeded.yaml", done.decide().status.to_patch())


def test_a_raising_reward_is_a_failure_with_a_hint(training: World) -> None:
    left = worlds.termination("RewardFailed", "The reward raised ZeroDivisionError on every row.")
    failed = training.settled().stored(result=worlds.result(Exit.ENVIRONMENT, left))
    golden("status-failed.yaml", failed.decide().status.to_patch())
