"""Killed and asked to stop at any moment: a run ends bit for bit as if nothing had happened.

Moments are requests to storage: a pod is caught at one, before it is done or before the answer, and
ended there. What the next pod finds is what such a pod leaves.
"""

import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from tests.trainer import forks
from tests.trainer.pods import (
    PATIENCE_SECONDS,
    TrainerPod,
    Workshop,
    newest,
    resolved,
    resumed,
)
from tests.trainer.storage import Request, Storage, between

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

SFT = {"epochs": 2, "max_examples": 64, "save_every": 4}
"""Two epochs of eight steps each."""
GRPO = {"steps": 6, "save_every": 2, "max_tokens": 16, "kl_penalty_coef": 0.05}
"""Fewer steps than an epoch has: TRL continues after the last one unless we stop it."""


Moment = tuple[str, bool]
"""A request, as a pattern, and whether storage has done it."""


SFT_MOMENTS: dict[str, Moment] = {
    "before the claim": (r"PUT attempt-\d+/claim\.json", False),
    "after the claim": (r"PUT attempt-\d+/claim\.json", True),
    "before the adapter of a save": (
        r"PUT attempt-\d+/step-4/adapter/adapter_model\.safetensors",
        False,
    ),
    "between adapter and manifest": (r"PUT attempt-\d+/step-4/manifest\.json", False),
    "between adapter and state": (r"PUT attempt-\d+/step-4/state/optimizer\.pt", False),
    "between metrics and state": (
        r"PUT metrics/attempt-\d+/after-\d+-part-0\.jsonl",
        True,
    ),
    "between state and marker": (r"PUT attempt-\d+/step-4/state\.json", False),
    "after a whole checkpoint": (r"PUT attempt-\d+/step-4/state\.json", True),
    "in the download of a checkpoint": (r"GET attempt-\d+/step-4/state/optimizer\.pt", False),
    "in a save further on": (r"PUT attempt-\d+/step-12/state/optimizer\.pt", True),
    "after the last checkpoint": (r"PUT attempt-\d+/step-16/state\.json", True),
    "before the final adapter": (r"PUT adapter/attempt-\d+/adapter_model\.safetensors", False),
    "between final adapter and manifest": (r"PUT adapter/manifest\.json", False),
    "between final manifest and result": (r"PUT adapter/manifest\.json", True),
}

GRPO_MOMENTS: dict[str, Moment] = {
    "between adapter and state": (r"PUT attempt-\d+/step-2/state\.json", False),
    "after a whole checkpoint": (r"PUT attempt-\d+/step-2/state\.json", True),
    "after the last checkpoint": (r"PUT attempt-\d+/step-6/state\.json", True),
}


def rollouts_of(pod: TrainerPod) -> dict[str, bytes]:
    """The rollouts of every step."""
    keys = [key for key in pod.keys if key.startswith("rollouts/")]
    return {key: pod.store.get_bytes(pod.prefix + key) for key in keys}


def is_request(pattern: str) -> Callable[[Request], bool]:
    return lambda request: re.fullmatch(pattern, str(request)) is not None


@pytest.fixture(scope="module")
def undisturbed(workshop: Workshop) -> dict[str, TrainerPod]:
    """One undisturbed run of each method."""
    pods = {
        "sft": workshop.pod(resolved("sft", **SFT)),
        "grpo": workshop.pod(resolved("grpo", **GRPO)),
    }
    assert [forks.trained(pod) for pod in pods.values()] == [Exit.DONE, Exit.DONE]
    return pods


@pytest.fixture
def storage(workshop: Workshop) -> Iterator[Storage]:
    """The storage of a new SFT run, with faults on demand."""
    with between(workshop.pod(resolved("sft", **SFT))) as made:
        yield made


def claims_of(pod: TrainerPod) -> list[str]:
    return [key for key in pod.keys if key.endswith("claim.json")]


def killed_at(storage: Storage, pod: TrainerPod, moment: Moment) -> TrainerPod:
    """Kill ``pod`` at a moment; return the pod that follows."""
    pattern, answered = moment
    before = newest(pod)
    with (
        storage.catching(is_request(pattern), answered) as catch,
        forks.started(pod, every_state=True) as process,
    ):
        pod.wait_for(lambda: catch.caught.is_set() or process.exitcode is not None)
        assert process.exitcode is None, f"the pod has ended before {pattern}:\n{pod.output}"
        process.kill()
        assert forks.ended(process) == -signal.SIGKILL
    if " INFO step " in pod.output:
        assert resumed(pod) == before
    return storage.used_by(pod.next())


def assert_the_same_end(pod: TrainerPod, undisturbed: TrainerPod, value: str) -> None:
    assert pod.weights == undisturbed.weights
    steps = [row.step for row in undisturbed.metrics]
    assert [row.step for row in pod.metrics] == steps == list(range(1, len(steps) + 1))
    assert pod.values(value) == undisturbed.values(value)
    assert pod.adapter.step == undisturbed.adapter.step == len(steps)


def test_a_moment_comes_however_slowly_a_save_is_uploaded(storage: Storage):
    storage.rule = lambda request: time.sleep(0.5) if "/adapter/" in request.key else None
    pod = storage.pod
    assert killed_at(storage, pod, SFT_MOMENTS["after a whole checkpoint"]).number == 2
    assert newest(pod) == (4, 1)


def test_an_sft_run_that_is_killed_everywhere_ends_like_an_undisturbed_one(
    storage: Storage, undisturbed: dict[str, TrainerPod]
):
    pod = storage.pod
    for moment in SFT_MOMENTS.values():
        pod = killed_at(storage, pod, moment)
    # The last pod has published the adapter without a result: nothing is left to train.
    claims = claims_of(pod)
    assert forks.trained(pod) == Exit.DONE
    assert "has ended before, with code 0" in pod.output
    assert names.result_key("") in pod.keys
    assert claims_of(pod) == claims
    assert_the_same_end(pod, undisturbed["sft"], "loss")


def test_a_grpo_run_that_is_killed_everywhere_ends_like_an_undisturbed_one(
    workshop: Workshop, undisturbed: dict[str, TrainerPod]
):
    with between(workshop.pod(resolved("grpo", **GRPO))) as storage:
        pod = storage.pod
        for moment in GRPO_MOMENTS.values():
            pod = killed_at(storage, pod, moment)
        assert forks.trained(pod) == Exit.DONE
    # All steps were saved: none was left to train.
    assert resumed(pod) == (6, 3)
    assert " INFO step " not in pod.output
    assert_the_same_end(pod, undisturbed["grpo"], "reward")
    assert rollouts_of(pod) == rollouts_of(undisturbed["grpo"])
    assert len(rollouts_of(pod)) == 6


def test_a_grpo_run_that_began_with_an_adapter_ends_the_same_when_it_is_killed(
    workshop: Workshop, undisturbed: dict[str, TrainerPod]
):
    start = undisturbed["sft"].as_source(step=8)
    whole = workshop.pod(resolved("grpo", init_from_adapter=start, **GRPO))
    assert forks.trained(whole) == Exit.DONE
    with between(workshop.pod(resolved("grpo", init_from_adapter=start, **GRPO))) as storage:
        pod = killed_at(storage, storage.pod, GRPO_MOMENTS["after a whole checkpoint"])
        assert forks.trained(pod) == Exit.DONE
    assert resumed(pod) is not None
    # The penalty is measured from where the run began, not from where it resumes.
    assert pod.values("kl") == whole.values("kl")
    assert_the_same_end(pod, whole, "reward")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_that_is_killed_at_random_ends_like_an_undisturbed_one(
    storage: Storage, undisturbed: dict[str, TrainerPod], seed: int
):
    chance = random.Random(seed)
    pod = storage.pod
    for _ in range(4):
        before, number, last = newest(pod), count(), chance.randrange(8, 40)
        with (
            storage.catching(
                lambda _, n=number, at=last: next(n) >= at, chance.random() < 0.5
            ) as it,
            forks.started(pod) as process,
        ):
            pod.wait_for(lambda it=it, p=process: it.caught.is_set() or p.exitcode is not None)
            process.kill()
        if " INFO step " in pod.output:
            assert resumed(pod) == before
        pod = storage.used_by(pod.next())
    assert forks.trained(pod) == Exit.DONE
    assert_the_same_end(pod, undisturbed["sft"], "loss")


def test_a_history_arrives_before_the_checkpoint_that_a_run_resumes_from(
    storage: Storage, undisturbed: dict[str, TrainerPod]
):
    pod = storage.pod
    with (
        storage.catching(is_request(r"PUT metrics/.*")) as late,
        forks.started(pod) as process,
    ):
        pod.wait_for(late.caught.is_set)
        pod.wait_for(pod.steps)
        pod.wait_for(lambda: "step 16 of 16" in pod.output)
        assert pod.steps(names.STATE_MANIFEST) == []
        process.kill()
    following = storage.used_by(pod.next())
    assert forks.trained(following) == Exit.DONE
    assert_the_same_end(following, undisturbed["sft"], "loss")


@pytest.mark.parametrize(
    ("moment", "code", "saved"),
    [
        (r"PUT attempt-1/claim\.json", Exit.INTERRUPTED_UNSAVED, False),
        (r"PUT attempt-1/step-4/adapter/adapter_model\.safetensors", Exit.INTERRUPTED_SAVED, True),
        (r"PUT attempt-1/step-4/state\.json", Exit.INTERRUPTED_SAVED, True),
        (r"PUT adapter/manifest\.json", Exit.DONE, True),
        (r"PUT result\.json", Exit.DONE, True),
    ],
    ids=["at the claim", "in a save", "between adapter and state", "at the end", "at the result"],
)
def test_sigterm_loses_nothing(storage: Storage, moment: str, code: int, saved: bool):
    pod = storage.pod
    with (
        storage.catching(is_request(moment), lost=False) as catch,
        forks.started(pod, every_state=True) as process,
    ):
        pod.wait_for(catch.caught.is_set)
        process.terminate()
        catch.released.set()
        assert forks.ended(process) == code, pod.output
    assert bool(pod.steps(names.STATE_MANIFEST)) == saved
    if code == Exit.INTERRUPTED_SAVED:
        assert newest(pod) == (pod.termination.step, 1)
        assert [row.step for row in pod.metrics] == list(range(1, pod.termination.step + 1))
    if code != Exit.DONE:
        assert pod.termination.reason == "Interrupted"


def test_sigterm_while_a_checkpoint_is_downloaded_leaves_it_for_the_next_pod(
    storage: Storage, undisturbed: dict[str, TrainerPod]
):
    pod = killed_at(storage, storage.pod, SFT_MOMENTS["after a whole checkpoint"])
    before = newest(pod)
    with (
        storage.catching(is_request(r"GET attempt-1/step-\d+/state/optimizer\.pt")) as catch,
        forks.started(pod) as process,
    ):
        pod.wait_for(catch.caught.is_set)
        process.terminate()
        catch.released.set()
        assert forks.ended(process) == Exit.INTERRUPTED_UNSAVED, pod.output
    assert pod.termination.reason == "Interrupted"
    assert newest(pod) == before

    following = storage.used_by(pod.next())
    assert forks.trained(following) == Exit.DONE
    assert resumed(following) == before
    assert_the_same_end(following, undisturbed["sft"], "loss")


def test_sigterm_while_the_base_model_is_downloaded_does_not_wait_for_it(
    storage: Storage, tmp_path: Path
):
    pod = storage.pod
    with (
        storage.catching(lambda request: request.key.endswith("model.safetensors")) as catch,
        pod.started("model", {"FLASHRUN_MODEL": str(tmp_path)}) as process,
    ):
        pod.wait_for(catch.caught.is_set)
        process.terminate()
        # Not by the signal: it does not end process 1 of a container.
        assert process.wait(PATIENCE_SECONDS) == Exit.INTERRUPTED_UNSAVED
    assert not list(tmp_path.rglob("model.safetensors"))


def test_sigterm_in_the_middle_of_a_save_ends_with_that_save(
    workshop: Workshop, undisturbed: dict[str, TrainerPod]
):
    pod = workshop.pod(resolved("sft", **(SFT | {"save_every": 1})))

    def is_saving() -> bool:
        for _ in range(1000):  # the folder is there for milliseconds
            if any(pod.folder.glob("work/checkpoints/*")):
                return True
            time.sleep(0.001)
        return False

    with forks.started(pod) as process:
        pod.wait_for(is_saving)
        process.terminate()
        assert forks.ended(process) == Exit.INTERRUPTED_SAVED, pod.output
    assert newest(pod) == (pod.termination.step, 1)
    following = pod.next()
    assert forks.trained(following) == Exit.DONE
    assert_the_same_end(following, undisturbed["sft"], "loss")


def test_sigterm_while_storage_is_gone_says_that_nothing_was_saved(
    workshop: Workshop,
):
    run = resolved("sft", upload_timeout_seconds=1, **(SFT | {"epochs": 20}))
    with (
        between(workshop.pod(run)) as storage,
        storage.catching(lambda request: "step-4" in request.key) as catch,
        forks.started(storage.pod) as process,
    ):
        pod = storage.pod
        pod.wait_for(catch.caught.is_set)
        os.kill(process.pid or 0, signal.SIGTERM)
        assert forks.ended(process) == Exit.INTERRUPTED_UNSAVED, pod.output
        assert "could not be saved in time" in pod.termination.message
        assert pod.steps() == []
