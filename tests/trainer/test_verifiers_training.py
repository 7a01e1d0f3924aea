"""GRPO on environments of verifiers: those that it ships, and what can happen to a run."""

import json
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.reasons import Activity
from flashrun.api.records import Scale
from flashrun_trainer.init import packages
from tests.trainer import chat_templates, forks
from tests.trainer import verifiers_sources as sources
from tests.trainer.pods import MODEL, TrainerPod, Workshop, evaluated, is_running, resolved
from tests.trainer.verifiers_sources import project

pytestmark = [pytest.mark.verifiers, pytest.mark.filterwarnings("default")]


@pytest.fixture(autouse=True)
def _installed(verifiers_site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every pod the virtual environment that was made once."""

    def install(_: Any, __: Any, folder: Path) -> None:
        folder.symlink_to(verifiers_site)

    monkeypatch.setattr(packages, "install_own_packages", install)


def rollouts(pod: TrainerPod, step: int) -> list[dict[str, Any]]:
    text = pod.store.get_bytes(names.rollouts_key(pod.prefix, step)).decode()
    return [json.loads(line) for line in text.splitlines()]


SHIPPED = {
    "puzzles": (sources.PUZZLES, {"check_answer_reward_func", "format_reward_func"}),
    "countdown": (sources.COUNTDOWN, {"sum_step_rewards", "num_turns"}),
    "several": (sources.GROUP, {"one", "two", "num_turns"}),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_an_environment_that_verifiers_ships_is_trained_on(workshop: Workshop, name: str) -> None:
    source, metrics = SHIPPED[name]
    has_split = name != "several"
    run = resolved(
        "grpo",
        steps=2,
        max_length=512,
        save_every=2,
        eval=evaluated(max_examples=2, required=has_split),
    )
    pod = workshop.pod(run, project(name, source))

    assert pod.train() == Exit.DONE

    for metric in metrics:
        assert len(pod.values(f"env/{metric}")) == 2
    assert pod.values("reward_errors") == [0, 0]
    assert len(pod.values("eval/score")) == (2 if has_split else 0)
    for row in rollouts(pod, 1):
        assert metrics <= row["metrics"].keys()
        assert row["prompt"][-1]["role"] == "user"
    assert pod.weights


CALLING = sources.TOOLS.replace("max_turns=3", "max_turns=2")


def test_an_environment_with_tools_describes_them_to_the_model(
    workshop: Workshop, tiny_model: Path
) -> None:
    model = MODEL.model_copy(update={"id": "tiny/calls"})
    cached = workshop.folder / "model" / model.id.replace("/", "--") / model.revision
    folder = shutil.copytree(tiny_model, cached)
    assert chat_templates.FOLDER
    template = (chat_templates.FOLDER / "qwen3.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template)
    run = resolved("grpo", steps=1, batch_size=1, group_size=2, max_length=1024, save_every=1)
    pod = workshop.pod(run.model_copy(update={"model": model}), project("tools", CALLING))

    assert pod.train() == Exit.DONE

    assert pod.values("env/total_tool_calls") == [0]  # a random model calls nothing
    assert pod.values("env/right") == [0]


def test_tools_need_a_model_whose_calls_can_be_read(workshop: Workshop) -> None:
    pod = workshop.pod(resolved("grpo"), project("tools", sources.TOOLS))
    assert pod.train() == Exit.CONFIG
    assert pod.termination.reason == "TemplateUnsupported"


def test_a_run_goes_on_with_the_same_prompts_after_an_interruption(workshop: Workshop) -> None:
    files = project("countdown", sources.COUNTDOWN)
    whole = workshop.pod(resolved("grpo", steps=3, max_length=512, save_every=1), files)
    assert whole.train() == Exit.DONE
    pod = workshop.pod(resolved("grpo", steps=3, max_length=512, save_every=1), files)
    with forks.started(pod) as process:
        pod.wait_for(pod.steps)
        process.terminate()
        assert forks.ended(process) == Exit.INTERRUPTED_SAVED
    again = pod.next()
    assert again.train() == Exit.DONE
    for step in (1, 2, 3):
        assert rollouts(again, step) == rollouts(whole, step)
    assert again.weights == whole.weights


HANGING = sources.TALK.replace('if word == "sleep":', "if True:")


def test_a_run_whose_environment_hangs_ends_within_seconds_of_its_cancellation(
    workshop: Workshop,
) -> None:
    pod = workshop.pod(
        resolved("grpo", max_length=512), project("talk", f"{HANGING}\nprint('loaded')\n")
    )
    with pod.started() as process:
        pod.wait_for(lambda: "up to" in pod.output and children(process.pid))
        [child] = children(process.pid)
        pod.wait_for(lambda: pod.heartbeat and pod.heartbeat.activity == Activity.TRAINING)
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 5
        assert process.wait(5) == Exit.INTERRUPTED_UNSAVED
        while is_running(child):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def children(pid: int) -> list[int]:
    """The processes that run an environment of verifiers for this process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_text().split("\0")
            if "verifiers_program.py" in "".join(words) and str(pid) in words:
                found.append(int(folder.name))
    return found


def test_two_processes_share_the_episodes(workshop: Workshop) -> None:
    run = resolved(
        "grpo",
        steps=2,
        max_length=512,
        save_every=2,
        eval=evaluated(max_examples=2),
        scale=Scale(gpus=2),
    )
    pod = workshop.pod(run, project("talk", sources.TALK))
    assert pod.launch() == Exit.DONE, pod.output
    assert len(pod.values("env/turns")) == 2
    assert len(pod.values("eval/score")) == 2
