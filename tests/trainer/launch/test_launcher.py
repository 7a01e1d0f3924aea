"""Several processes: they learn the same as one, and the run continues whichever of them dies."""

import os
import signal
import socket
from datetime import UTC, datetime

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import Claim, Manifest, Result, Scale, TrainerControl
from tests.trainer import forks
from tests.trainer.pods import HEAD, TrainerPod, Workshop, ranks_of, resolved, sums

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

TWO = Scale(gpus=2)
SFT = {"epochs": 6, "save_every": 10}
GRPO = {"batch_size": 1, "steps": 12, "save_every": 2, "kl_penalty_coef": 0.05}

COMPARES = """
    def score_response(self, example, response_text):
        raise AssertionError("answers to one example are scored together")

    def score_responses(self, example, responses):
        assert len(responses) == 4, "answers to one example are compared with each other"
        return [RewardResult(score=float(len(text) % 5)) for text in responses]


def load_environment(**params):
    return Environment()
"""


@pytest.fixture(scope="module")
def undisturbed(workshop: Workshop) -> TrainerPod:
    """An undisturbed SFT run by two processes, with one requested checkpoint."""
    pod = workshop.pod(resolved("sft", scale=TWO, **SFT))
    pod.store.put_json(names.control_key(pod.prefix), TrainerControl(save_request="at once"))
    assert forks.trained(pod) == Exit.DONE, pod.output
    return pod


def test_two_processes_learn_what_one_would(workshop: Workshop, undisturbed: TrainerPod):
    alone = workshop.pod(resolved("sft", **SFT))
    assert alone.train() == Exit.DONE

    assert undisturbed.values("loss")[:16] == pytest.approx(alone.values("loss")[:16], rel=1e-4)
    assert len(undisturbed.metrics) == len(alone.metrics)
    assert undisturbed.values("loss")[-1] < undisturbed.values("loss")[0] / 2
    assert undisturbed.termination.reason == "Succeeded"
    claims = [key for key in undisturbed.keys if key.endswith("claim.json")]
    assert claims == ["attempt-1/claim.json"]
    log = undisturbed.store.get_bytes(names.log_key(undisturbed.prefix, 1)).decode()
    assert "attempt 1 ends with code 0" in log
    assert "[rank 1] " in log


def test_a_save_request_is_honoured_by_all_processes_at_the_next_step(undisturbed: TrainerPod):
    assert undisturbed.steps() == [(1, step) for step in (1, *range(10, 97, 10), 96)]


@pytest.mark.sharding
def test_a_killed_process_ends_its_pod_and_the_next_one_ends_bit_for_bit_the_same(
    workshop: Workshop, undisturbed: TrainerPod
):
    # The group of four is sampled by two processes, and scored by one.
    environment = sums(environment=HEAD + COMPARES)
    changes = GRPO | {"init_from_adapter": undisturbed.as_source()}
    whole = workshop.pod(resolved("grpo", scale=TWO, **changes), environment)
    assert forks.trained(whole) == Exit.DONE, whole.output
    assert whole.values("reward_errors") == [0.0] * 12
    # Answers that end early in one process and late in the other.
    lengths = [whole.values(f"completions/{which}_length") for which in ("min", "max")]
    assert any(least < most for least, most in zip(*lengths, strict=True))

    # Sharding of the base model changes nothing.
    spread = Scale(gpus=2, sharded=True)
    pod = workshop.pod(resolved("grpo", scale=spread, **changes), environment)
    with forks.started(pod) as process:
        pod.wait_for(lambda: pod.steps(names.STATE_MANIFEST))
        _, second = ranks_of(process)
        os.kill(second, signal.SIGKILL)
        assert forks.ended(process) == 128 + signal.SIGKILL, pod.output
    assert pod.termination.reason == "ProcessKilled"
    assert "process 1 of 2 was killed by SIGKILL" in pod.termination.message
    assert names.result_key("") not in pod.keys

    following = pod.next()
    assert forks.trained(following) == Exit.DONE, following.output
    assert following.weights == whole.weights
    for value in ("reward", "kl"):
        assert following.values(value) == whole.values(value)
    assert {row.attempt for row in following.metrics} == {1, 2}


@pytest.mark.sharding
def test_two_pods_share_a_model_and_resume_together_bit_for_bit_the_same(
    workshop: Workshop, undisturbed: TrainerPod
):
    scale = Scale(nodes=2, sharded=True)
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    leader = workshop.pod(resolved("sft", scale=scale, **SFT), leader_port=port)
    other = leader.peer()
    with forks.started(leader) as leading, forks.started(other) as following:
        leader.wait_for(lambda: leader.steps(names.STATE_MANIFEST))
        forks.kill(following)
        assert forks.ended(leading) == Exit.INTERRUPTED_UNSAVED, leader.output
    assert leader.termination.reason == "PeerLost"
    assert leader.termination.message.startswith("pod 1 of this attempt has gone away")

    # Only one of the pods is asked to stop: both do, at the same step.
    leader, other = leader.next(), other.next()
    with forks.started(leader) as leading, forks.started(other) as following:
        leader.wait_for(lambda: " INFO step " in leader.output)
        following.terminate()
        codes = [forks.ended(process) for process in (leading, following)]
    assert codes == [Exit.INTERRUPTED_SAVED] * 2, leader.output + other.output
    assert leader.termination.reason == other.termination.reason == "Interrupted"
    assert (2, leader.termination.step) in leader.steps(names.STATE_MANIFEST)
    # The other pod's random state is saved, too, and nothing stays on its disk.
    saved = names.step_prefix(leader.prefix, 2, leader.termination.step or 0)
    files = leader.store.get_json(saved + names.STATE_MANIFEST, Manifest).files
    assert {"state/rng_state_0.pth", "state/rng_state_1.pth"} <= {file.path for file in files}
    assert not list(other.folder.glob("work/checkpoints/*"))
    assert names.result_key("") not in leader.keys

    leader, other = leader.next(), other.next()
    with forks.started(leader) as leading, forks.started(other) as following:
        codes = [forks.ended(process) for process in (leading, following)]
    assert codes == [Exit.DONE] * 2, leader.output + other.output
    assert leader.weights == undisturbed.weights
    assert leader.values("loss") == undisturbed.values("loss")
    log = leader.store.get_bytes(names.log_key(leader.prefix, 3)).decode()
    assert "are sharded over 2 processes" in log
    claims = [key for key in leader.keys if key.endswith("claim.json")]
    assert claims == [f"attempt-{number}/claim.json" for number in (1, 2, 3)]


RUNS_OUT = """
import os

if os.environ["RANK"] == "0":
    import torch

    class Counted:
        passes = 0

    backward = torch.Tensor.backward

    def limited(*given, **more):
        Counted.passes += 1
        if Counted.passes == 9:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return backward(*given, **more)

    torch.Tensor.backward = limited

"""


def test_the_first_process_saves_its_last_whole_step_without_waiting_for_the_others(
    workshop: Workshop,
):
    source = RUNS_OUT + sums()["environment.py"]
    run = resolved("sft", scale=TWO, epochs=6, save_every=50)
    pod = workshop.pod(run, sums(environment=source))
    assert forks.trained(pod) == Exit.CUDA_OUT_OF_MEMORY, pod.output
    assert pod.termination.reason == "CudaOutOfMemory"
    assert " in the gradient of " in pod.termination.message
    assert (pod.steps(), pod.steps(names.STATE_MANIFEST)) == ([(1, 8)], [(1, 8)])


def test_a_superseded_attempt_ends_all_of_its_processes(workshop: Workshop):
    pod = workshop.pod(resolved("sft", scale=TWO, epochs=200, save_every=5000))
    with forks.started(pod) as process:
        pod.wait_for(lambda: " INFO step " in pod.output)
        claim = Claim(attempt=2, pod="x", pod_uid="x", node="", started=datetime.now(UTC))
        pod.store.create_json(names.claim_key(pod.prefix, 2), claim)
        assert forks.ended(process) == Exit.INTERRUPTED_UNSAVED, pod.output
    assert pod.termination.reason == "Superseded"


DRAWS = """
import random

random.{kind}shuffle(ORDER := list(range(40)))

"""

OWN_ORDER = """

class Shuffled(Sums):
    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": f"{example.input} {ORDER}"}]


def load_environment(**params):
    return Shuffled("Answer.")
"""


def test_processes_have_the_same_examples_or_do_not_train(workshop: Workshop):
    def drawing(kind: str) -> TrainerPod:
        source = DRAWS.replace("{kind}", kind) + sums()["environment.py"] + OWN_ORDER
        run = resolved("sft", scale=TWO, max_steps=1, max_length=512)
        return workshop.pod(run, sums(environment=source))

    seeded, free = drawing(""), drawing("SystemRandom().")
    assert forks.trained(seeded) == Exit.DONE, seeded.output
    assert forks.trained(free) == Exit.ENVIRONMENT, free.output
    assert free.termination.reason == "ExamplesDiffer"


FAILS = """
import os

if os.environ["RANK"] == "1":
    raise RuntimeError("rank 1 does not find its judge")

"""


def test_an_error_of_one_process_ends_all_with_its_message(workshop: Workshop):
    pod = workshop.pod(
        resolved("sft", scale=TWO), sums(environment=FAILS + sums()["environment.py"])
    )
    assert pod.launch() == Exit.ENVIRONMENT, pod.output
    assert "RuntimeError: rank 1 does not find its judge" in pod.termination.message
    result = pod.store.get_json(names.result_key(pod.prefix), Result)
    assert (result.exit_code, result.termination) == (Exit.ENVIRONMENT, pod.termination)
    assert not pod.store.exists(names.heartbeat_key(pod.run.run.uid))
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    assert "[rank 1] RuntimeError: rank 1 does not find its judge" in log

    again = pod.next()
    assert again.launch() == Exit.ENVIRONMENT
    assert again.termination == pod.termination
    assert "[rank 1]" not in again.output
