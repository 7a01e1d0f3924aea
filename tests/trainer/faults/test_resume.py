"""Interrupted, doubled and damaged: a run continues as if nothing had happened."""

import signal
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import Claim, Result, TrainerControl
from tests.trainer import forks
from tests.trainer.pods import PATIENCE_SECONDS, TrainerPod, Workshop, resolved

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


def logged_steps(pod: TrainerPod) -> list[str]:
    return [line for line in pod.output.splitlines() if " INFO step " in line]


def test_sigterm_before_training_ends_at_once(workshop: Workshop):
    pod = workshop.pod(resolved("sft"))
    with pod.started() as process:
        pod.wait_for(lambda: "has claimed attempt" in pod.output)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == Exit.INTERRUPTED_UNSAVED
    assert pod.termination.reason == "Interrupted"


def test_sigterm_while_python_starts_is_answered_when_it_can_be(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # This module is imported first, and its finder is called at every import.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "def ask(event, found):\n"
        "    if event == 'import' and found[0] == 'pydantic':\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.addaudithook(ask)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pod = workshop.pod(resolved("sft"))
    assert pod.launch() == Exit.INTERRUPTED_UNSAVED, pod.output
    assert pod.keys == []


def test_a_pod_that_starts_after_the_end_ends_the_same_way(workshop: Workshop):
    pod = workshop.pod(resolved("sft", max_steps=2))
    assert pod.train() == Exit.DONE
    keys = pod.keys
    again = pod.next()
    assert again.train() == Exit.DONE
    assert again.keys == keys


def test_a_pod_that_starts_after_a_failure_fails_the_same_way(workshop: Workshop):
    run = resolved("sft", environment={"split": "test", "params": {"split": "test"}})
    pod = workshop.pod(run)
    assert pod.train() == Exit.DATA
    again = pod.next()
    assert again.train() == Exit.DATA
    assert again.termination == pod.termination
    assert len([key for key in again.keys if key.endswith("claim.json")]) == 1


def test_an_adapter_without_a_result_counts_as_the_end(workshop: Workshop):
    pod = workshop.pod(resolved("sft", max_steps=2))
    assert pod.train() == Exit.DONE
    pod.store.delete([names.result_key(pod.prefix)])
    assert pod.next().train() == Exit.DONE
    assert pod.store.get_json(names.result_key(pod.prefix), Result).attempt == 1
    assert {attempt for attempt, _ in pod.steps()} == {1}


def test_a_superseded_pod_stops_and_commits_nothing_more(workshop: Workshop):
    pod = workshop.pod(resolved("sft", epochs=10_000, save_every=20))
    with forks.started(pod) as process:
        pod.wait_for(pod.steps)
        key = names.claim_key(pod.prefix, 1)
        own = pod.store.get_json(key, Claim)
        pod.store.put_json(key, own.model_copy(update={"superseded": True}))
        assert forks.ended(process) == Exit.INTERRUPTED_UNSAVED
    assert pod.termination.reason == "Superseded"
    assert names.result_key("") not in pod.keys


@pytest.mark.parametrize("damage", ["flipped", "missing", "unmarked"])
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(workshop: Workshop, damage: str):
    pod = workshop.pod(resolved("sft", save_every=5))
    assert pod.train() == Exit.DONE
    good = pod.weights
    # Run again from the checkpoints: without result and adapter, the newest checkpoint damaged.
    doomed = [key for key in pod.keys if key.startswith("adapter/")] + ["result.json"]
    pod.store.delete([pod.prefix + key for key in doomed])
    newest = names.step_prefix(pod.prefix, 1, 16)
    weights = f"{newest}adapter/adapter_model.safetensors"
    if damage == "flipped":
        data = bytearray(pod.store.get_bytes(weights))
        data[-1] ^= 1
        pod.store.put_bytes(weights, bytes(data))
    else:
        gone = weights if damage == "missing" else newest + names.STATE_MANIFEST
        pod.store.delete([gone])

    following = pod.next()
    assert following.train() == Exit.DONE
    log = following.store.get_bytes(names.log_key(pod.prefix, 2)).decode()
    resumed = [line for line in log.splitlines() if "resuming from step" in line]
    # Only the newest state is certain to be uploaded; without any, the run starts again.
    assert not any("step 16 of attempt 1" in line for line in resumed)
    assert following.weights == good


def test_a_save_request_is_honoured_at_the_next_step(workshop: Workshop):
    pod = workshop.pod(resolved("sft", epochs=10_000, save_every=1_000_000))
    with forks.started(pod):
        pod.wait_for(lambda: len(logged_steps(pod)) > 3)
        control = names.control_key(pod.prefix)
        pod.store.put_json(control, TrainerControl(save_request="now"))
        pod.wait_for(lambda: len(pod.steps()) == 1)
        pod.store.put_json(control, TrainerControl(save_request="and again"))
        pod.wait_for(lambda: len(pod.steps()) == 2)
