"""Ended during an evaluation: the run goes on as if nothing had happened, and evaluates once."""

import signal
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import CheckpointEvaluation, Manifest, Scale, TrainerControl
from tests.trainer import forks
from tests.trainer.faults.test_interruptions import LONGEST_ANSWER_SECONDS
from tests.trainer.faults.test_kills import newest, resumed
from tests.trainer.pods import TrainerPod, Workshop, evaluated, resolved, rows, sums

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

HELD_OUT = rows(*((f"Held out: what is {left} plus 70?", str(left + 70)) for left in range(8)))
HANGS = """
import random
import time
from pathlib import Path

from freesolo.environments import EnvironmentSingleTurn, RewardResult

FOLDER = Path("{folder}")


class Hangs(EnvironmentSingleTurn):
    max_score_concurrency = 1
    calls = 0

    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": str(example.input)}]

    def score_response(self, example, response_text):
        if example.input.startswith("Held out"):
            self.calls += 1
            hang = FOLDER / f"hang-{self.calls}"
            if hang.exists():
                hang.rename(FOLDER / "hangs")
                while True:
                    try:
                        time.sleep(3600)
                    except BaseException:
                        pass
            return RewardResult(score=random.random() + len(response_text) % 5)
        return RewardResult(score=float(len(response_text) % 5))


def load_environment(**params):
    return Hangs()
"""


def evaluations(pod: TrainerPod) -> list[tuple[int, dict[str, float]]]:
    """Step and metrics of every evaluation, without its seconds."""
    found = [
        (row.step, {name: row.values[name] for name in row.values if name.startswith("eval/")})
        for row in pod.metrics
    ]
    return [
        (step, {name: value for name, value in values.items() if name != "eval/seconds"})
        for step, values in found
        if values
    ]


def scores(pod: TrainerPod) -> dict[int, CheckpointEvaluation | None]:
    """What the newest manifest of each checkpoint says, as the operator reads it."""
    keys = (names.parse_step_key(pod.prefix, entry.key) for entry in pod.store.list(pod.prefix))
    places = sorted((key.step, key.attempt) for key in keys if key and key.path == names.MANIFEST)
    return {
        step: pod.store.get_json(
            names.step_prefix(pod.prefix, attempt, step) + names.MANIFEST, Manifest
        ).evaluation
        for step, attempt in places
    }


def ended_in_evaluation(pod: TrainerPod, folder: Path, call: int, number: int) -> TrainerPod:
    """End a pod with a signal in a call of its evaluations; return the pod that follows."""
    (folder / f"hang-{call}").touch()
    with forks.started(pod) as process:
        pod.wait_for(lambda: (folder / "hangs").exists() or process.exitcode is not None)
        assert process.exitcode is None, pod.output
        if number == signal.SIGKILL:
            forks.kill(process)
        else:
            process.terminate()
            process.join(LONGEST_ANSWER_SECONDS)
            assert process.exitcode == Exit.INTERRUPTED_SAVED, pod.output
    (folder / "hangs").unlink()
    return pod.next()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_is_ended_in_its_evaluations_ends_like_an_undisturbed_one(
    workshop: Workshop, tmp_path: Path, ranks: int
):
    settings = evaluated()
    scale = {"scale": Scale(gpus=ranks)} if ranks > 1 else {}
    run = resolved("grpo", steps=4, save_every=2, eval=settings, **scale)
    files = sums(environment=HANGS.replace("{folder}", str(tmp_path)), eval=HELD_OUT)
    whole = workshop.pod(run, files)
    assert forks.trained(whole) == Exit.DONE, whole.output
    assert [step for step, _ in evaluations(whole)] == [0, 2, 4]

    share = 8 // ranks
    again = resolved("grpo", steps=4, save_every=2, eval=settings, **scale)
    pod = workshop.pod(again, files)
    # In the first evaluation, before anything is saved.
    pod = ended_in_evaluation(pod, tmp_path, 2, signal.SIGKILL)
    # In that of step 2: the step is saved, and evaluated by the next pod.
    pod = ended_in_evaluation(pod, tmp_path, share + 2, signal.SIGTERM)
    assert newest(pod) == (2, 2)
    assert [step for step, _ in evaluations(pod)] == [0]
    # In the last one, after that of step 2: no step is left to train.
    pod = ended_in_evaluation(pod, tmp_path, share + 2, signal.SIGTERM)
    assert newest(pod) == (4, 3)
    assert forks.trained(pod) == Exit.DONE, pod.output
    assert resumed(pod) == (4, 3)

    assert pod.weights == whole.weights
    assert evaluations(pod) == evaluations(whole)
    assert scores(pod) == scores(whole)
    assert set(scores(pod)) == {2, 4}
    assert [row.step for row in pod.metrics] == [row.step for row in whole.metrics]
    assert pod.values("reward") == whole.values("reward")


def test_a_save_that_was_asked_for_is_evaluated_after_a_stop_in_its_evaluation(
    workshop: Workshop, tmp_path: Path
):
    """No step of the config is due there: only the manifest says that it was to be evaluated."""
    run = resolved("grpo", steps=3, save_every=3, eval=evaluated())
    files = sums(environment=HANGS.replace("{folder}", str(tmp_path)), eval=HELD_OUT)
    pod = workshop.pod(run, files)
    pod.store.put_json(names.control_key(pod.prefix), TrainerControl(save_request="now"))
    pod = ended_in_evaluation(pod, tmp_path, 8 + 2, signal.SIGTERM)
    stopped, attempt = newest(pod)
    assert stopped < 3
    marker = names.step_prefix(pod.prefix, attempt, stopped) + names.MANIFEST
    assert pod.store.get_json(marker, Manifest).evaluation_stopped

    assert forks.trained(pod) == Exit.DONE, pod.output
    assert [step for step, _ in evaluations(pod)] == [0, stopped, 3]
    assert all(scores(pod).values())


def test_a_stop_outside_an_evaluation_leaves_a_step_that_is_not_due_without_one(
    workshop: Workshop,
):
    run = resolved("grpo", steps=40, save_every=40, eval=evaluated())
    pod = workshop.pod(run, sums(eval=HELD_OUT))
    with forks.started(pod) as process:
        pod.wait_for(lambda: " INFO step 2 " in pod.output or process.exitcode is not None)
        process.terminate()
        process.join(LONGEST_ANSWER_SECONDS)
    pod = pod.next()
    stopped, _ = newest(pod)
    with forks.started(pod) as process:
        pod.wait_for(lambda: f" INFO step {stopped + 1} " in pod.output)
        forks.kill(process)
    assert [step for step, _ in evaluations(pod)] == [0]
    assert scores(pod) == {stopped: None}
