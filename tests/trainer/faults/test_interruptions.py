"""Asked to stop in any part of a step: the pod ends soon, with the last whole step, to the bit.

Each part of a step hangs once, for ever: no test passes because a step ends in the end.
"""

from pathlib import Path
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.reasons import Activity
from flashrun.api.records import Scale
from tests.trainer import forks
from tests.trainer.faults.test_kills import assert_the_same_end
from tests.trainer.pods import TrainerPod, Workshop, newest, resolved, resumed, sums
from tests.trainer.storage import between

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

LONGEST_ANSWER_SECONDS = 60
"""Far above the 5 seconds that it should take, for a busy machine; what hangs, hangs for ever."""

HANGS = """
import ctypes
import os
import time
from pathlib import Path

import torch
import transformers
from freesolo.environments import (
    EnvironmentMultiTurn, EnvironmentSingleTurn, EnvironmentStepResult, RewardResult,
)

FOLDER = Path("{folder}")
RANK = os.environ.get("RANK", "0")
calls = dict()


def hang_at(part, number):
    '''Hang in the call ``number`` of a part, if that is the part of the test.'''
    calls[part] = calls.get(part, 0) + 1
    armed = FOLDER / f"{part}-{RANK}"
    if calls[part] != number or not armed.exists():
        return
    armed.rename(FOLDER / "hangs")
    if part.endswith("in C"):
        # No signal ends the wait for a lock that its own thread holds.
        libc, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        libc.pthread_mutex_lock(lock)
        libc.pthread_mutex_lock(lock)
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            pass


def hanging_before(method, part, number):
    def hang_and_call(*args, **kwargs):
        hang_at(part, number)
        hang_at(f"{part} in C", number)
        return method(*args, **kwargs)

    return hang_and_call


sample = transformers.GenerationMixin.generate
transformers.GenerationMixin.generate = hanging_before(sample, "generation", 4)
torch.Tensor.backward = hanging_before(torch.Tensor.backward, "backward", 4)


class Single(EnvironmentSingleTurn):
    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": str(example.input)}]

    def score_response(self, example, response_text):
        hang_at("scoring", 3 * 8 // {ranks} + 2)
        return RewardResult(score=float(len(response_text) % 5))


class Serial(Single):
    max_score_concurrency = 1


class Multi(EnvironmentMultiTurn):
    def start_episode(self, example, prompt_text):
        return [dict(role="user", content=str(example.input))]

    def max_episode_turns(self, example):
        return 2

    def step_episode(self, example, messages, assistant_response):
        hang_at("reply", 3 * 16 + 2)
        again = dict(role="user", content="Again.")
        return EnvironmentStepResult(done=False, messages=(again,))

    def score_episode(self, example, episode):
        return RewardResult(score=float(len(str(episode.messages)) % 5))


def load_environment(kind="Single", **params):
    return globals()[kind]()
"""

GRPO = {"steps": 5, "save_every": 100, "max_tokens": 8, "kl_penalty_coef": 0.05}
SFT = {"batch_size": 8, "max_steps": 5, "save_every": 100}


class Hanging:
    """A run one of whose parts hangs once, in step 4."""

    def __init__(self, workshop: Workshop, folder: Path, kind: str, ranks: int) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        source = HANGS.replace("{folder}", str(folder)).replace("{ranks}", str(ranks))
        changes: dict[str, Any] = {"scale": Scale(gpus=ranks)} if ranks > 1 else {}
        params = {} if kind == "SFT" else {"kind": kind}
        run = (
            resolved("sft", **SFT, **changes)
            if kind == "SFT"
            else resolved("grpo", **GRPO, environment={"params": params}, **changes)
        )
        self.pod = workshop.pod(run, sums(environment=source))

    def stopped_in(self, part: str, rank: int = 0) -> TrainerPod:
        """Ask the pod to stop while a part hangs, and return the pod that follows."""
        (self.folder / f"{part}-{rank}").touch()
        pod = self.pod
        with forks.started(pod) as process:
            hangs = (self.folder / "hangs").exists
            pod.wait_for(lambda: hangs() or process.exitcode is not None)
            assert process.exitcode is None, pod.output
            process.terminate()
            process.join(LONGEST_ANSWER_SECONDS)
            assert process.exitcode == Exit.INTERRUPTED_SAVED, pod.output
        assert pod.termination.reason == "Interrupted"
        assert pod.termination.step == 3
        assert newest(pod) == (3, 1)
        assert [row.step for row in pod.metrics] == [1, 2, 3]
        return pod.next()


UNDISTURBED: dict[tuple[str, int], TrainerPod] = {}


def undisturbed(workshop: Workshop, folder: Path, kind: str, ranks: int) -> TrainerPod:
    """The run that nothing happens to, once for all tests."""
    if (kind, ranks) not in UNDISTURBED:
        pod = Hanging(workshop, folder, kind, ranks).pod
        assert forks.trained(pod) == Exit.DONE, pod.output
        UNDISTURBED[kind, ranks] = pod
    return UNDISTURBED[kind, ranks]


@pytest.mark.parametrize(
    ("kind", "part", "ranks", "rank"),
    [
        ("Single", "generation in C", 1, 0),
        ("Single", "scoring", 1, 0),
        ("Serial", "scoring", 1, 0),
        ("Multi", "reply", 1, 0),
        ("Single", "backward in C", 1, 0),
        ("Single", "scoring", 2, 0),
        ("Single", "scoring", 2, 1),
        ("SFT", "backward in C", 2, 1),
    ],
)
def test_a_pod_that_is_asked_to_stop_ends_with_the_last_whole_step(
    workshop: Workshop, tmp_path: Path, kind: str, part: str, ranks: int, rank: int
):
    whole = undisturbed(workshop, tmp_path / "undisturbed", kind, ranks)
    following = Hanging(workshop, tmp_path / "stopped", kind, ranks).stopped_in(part, rank)
    assert forks.trained(following) == Exit.DONE, following.output
    assert resumed(following) == (3, 1)
    assert_the_same_end(following, whole, "loss" if kind == "SFT" else "reward")


def test_a_pod_that_is_asked_to_stop_in_its_first_step_says_that_there_was_nothing_to_save(
    workshop: Workshop, tmp_path: Path
):
    source = HANGS.replace("{folder}", str(tmp_path)).replace("3 * 8 // {ranks} + 2", "2")
    (tmp_path / "scoring-0").touch()
    run = resolved("grpo", **GRPO, environment={"params": {}})
    pod = workshop.pod(run, sums(environment=source))
    with forks.started(pod) as process:
        pod.wait_for((tmp_path / "hangs").exists)
        process.terminate()
        process.join(LONGEST_ANSWER_SECONDS)
        assert process.exitcode == Exit.INTERRUPTED_UNSAVED, pod.output
    assert "in the first step; there was nothing to save" in pod.termination.message
    assert pod.steps() == []


def test_a_resumed_pod_that_is_asked_to_stop_in_its_first_step_is_saved_already(
    workshop: Workshop, tmp_path: Path
):
    hanging = Hanging(workshop, tmp_path, "Single", 1)
    following = hanging.stopped_in("scoring")
    (tmp_path / "hangs").unlink()
    (tmp_path / "scoring-0").touch()
    environment = following.inside.environment / "environment.py"
    environment.write_text(environment.read_text().replace("3 * 8 // 1 + 2", "2"))
    with forks.started(following) as process:
        following.wait_for((tmp_path / "hangs").exists)
        process.terminate()
        process.join(LONGEST_ANSWER_SECONDS)
        assert process.exitcode == Exit.INTERRUPTED_SAVED, following.output
    assert "step 3 is saved" in following.termination.message
    assert newest(following) == (3, 1)


def test_a_pod_that_is_asked_to_stop_uploads_its_last_step_before_older_ones(
    workshop: Workshop,
):
    run = resolved("sft", epochs=4, save_every=1)
    with between(workshop.pod(run)) as storage:
        pod, first = storage.pod, []

        def rule(request: Any) -> None:
            if request.method == "PUT" and "/step-" in request.key:
                first.append(request.key.split("/")[1])
                if len(first) == 1:
                    catch.hold()

        with storage.catching(lambda _: False) as catch, forks.started(pod) as process:
            storage.rule = rule
            pod.wait_for(lambda: pod.output.count(" INFO step ") >= 5)
            process.terminate()
            pod.wait_for(lambda: "was asked to stop" in pod.output)
            catch.lost = False
            pod.wait_for(lambda: (beat := pod.heartbeat) and beat.activity == Activity.UPLOADING)
            catch.released.set()
            assert forks.ended(process) == Exit.INTERRUPTED_SAVED, pod.output
    step = pod.termination.step
    assert step is not None
    assert list(dict.fromkeys(first))[:3] == ["step-1", f"step-{step}", "step-2"]
    assert [saved for _, saved in pod.steps()] == list(range(1, step + 1))
    assert names.result_key("") not in pod.keys
