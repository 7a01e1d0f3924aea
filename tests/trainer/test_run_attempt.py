"""Runs that cannot succeed: one code, one sentence that names the cause, and no secret in it."""

from pathlib import Path
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import Result
from flashrun_trainer import run_attempt
from flashrun_trainer.data import retries
from flashrun_trainer.pod.image_packages import installed_pins
from flashrun_trainer.records.wandb_process import Tracker
from tests.trainer import forks
from tests.trainer.pods import HEAD, Workshop, resolved, rows, sums

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

SCORE = HEAD + "    def score_response(self, example, response_text):\n"
LOAD = "\n\ndef load_environment(**params):\n    return Environment()\n"
SPLIT = {"split": "test", "params": {"split": "test"}}
SECRET = "canary-7f3a-value"

CASES: dict[str, tuple[dict[str, Any], dict[str, str], int, str, str]] = {
    "a split that is not there is named, with what is there": (
        {"algorithm": "sft", "environment": SPLIT},
        {},
        Exit.DATA,
        "SplitMissing",
        "has no dataset/test.jsonl; it has train",
    ),
    "a dataset without rows": (
        {"algorithm": "sft"},
        {"train": "\n"},
        Exit.DATA,
        "DatasetEmpty",
        "has no examples",
    ),
    "a dataset that is no JSON": (
        {"algorithm": "sft"},
        {"train": "{nonsense\n"},
        Exit.DATA,
        "DatasetInvalid",
        "JSONDecodeError",
    ),
    "completions that max_length cuts away": (
        {"algorithm": "sft", "max_length": 4},
        {},
        Exit.DATA,
        "NothingToLearn",
        "none of the 128 examples has a completion within max_length = 4",
    ),
    "rows without an output": (
        {"algorithm": "sft"},
        {"train": rows(("What is 1 plus 1?", None))},
        Exit.DATA,
        "NothingToLearn",
        "none of the 1 examples",
    ),
    "prompts that leave no room": (
        {"algorithm": "grpo", "max_length": 12, "max_tokens": 8},
        {},
        Exit.DATA,
        "PromptsTooLong",
        "all 128 prompts are longer than max_length - max_tokens = 4 tokens",
    ),
    "a temperature of zero": (
        {"algorithm": "grpo", "temperature": 0.0},
        {},
        Exit.CONFIG,
        "TemperatureZero",
        "train.temperature is 0",
    ),
    "an import that nobody has": (
        {"algorithm": "sft"},
        {"environment": "import a_module_that_nobody_has\n"},
        Exit.ENVIRONMENT,
        "EnvironmentFailed",
        "ModuleNotFoundError: No module named 'a_module_that_nobody_has'",
    ),
    "a module with the name of a package of the trainer, pushed by an older flash": (
        {"algorithm": "sft"},
        {"datasets.py": "rows = []\n"},
        Exit.ENVIRONMENT,
        "EnvironmentInvalid",
        "the environment's datasets.py has the name of a module that the trainer imports",
    ),
    "an environment of the wrong kind": (
        {"algorithm": "sft"},
        {"environment": "def load_environment():\n    return object()\n"},
        Exit.ENVIRONMENT,
        "EnvironmentFailed",
        "TypeError",
    ),
    "a prompt that fails": (
        {"algorithm": "grpo"},
        {
            "environment": SCORE.replace("str(example.input)", "example.nothing")
            + "        ..."
            + LOAD
        },
        Exit.ENVIRONMENT,
        "EnvironmentFailed",
        "has no attribute 'nothing'",
    ),
    "a reward that always fails": (
        {"algorithm": "grpo"},
        {"environment": SCORE + "        raise ValueError(f'no {1 / 1}')" + LOAD},
        Exit.ENVIRONMENT,
        "RewardFailed",
        "nothing of the first step could be judged in 5 tries: in row ",
    ),
    "a reward that is no number": (
        {"algorithm": "grpo"},
        {"environment": SCORE + "        return RewardResult(score=float('nan'))" + LOAD},
        Exit.ENVIRONMENT,
        "RewardFailed",
        "the score is nan",
    ),
    "a learning rate that diverges": (
        {"algorithm": "sft", "learning_rate": 1e30, "epochs": 3},
        {},
        Exit.DIVERGED,
        "Diverged",
        "training diverged",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_cannot_succeed_says_why(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, case: str
):
    monkeypatch.setattr(retries, "_PAUSES_SECONDS", (0.01,))
    knobs, files, code, reason, words = CASES[case]
    package = sums(**files) | {name: text for name, text in files.items() if name.endswith(".py")}
    pod = workshop.pod(resolved(**knobs), package)

    assert pod.train() == code

    assert pod.termination.reason == reason
    assert words in pod.termination.message
    assert "\n" not in pod.termination.message
    assert pod.termination.hint
    assert pod.termination.attempt == 1
    assert (pod.termination.peak_memory_bytes or 0) > 1 << 20
    result = pod.store.get_json(names.result_key(pod.prefix), Result)
    assert (result.exit_code, result.termination) == (code, pod.termination)
    assert not pod.store.exists(names.heartbeat_key(pod.run.run.uid))


def test_the_result_says_why_weights_and_biases_got_nothing(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_API_KEY", "sesame-open")

    class Refused(Tracker):
        def __init__(self, run, environment, folder, report_problem):
            super().__init__(run, {}, folder)
            report_problem(f"CommError: {environment['WANDB_API_KEY']} may not write\nTraceback")

    monkeypatch.setattr(run_attempt, "Tracker", Refused)
    pod = workshop.pod(resolved("sft", max_steps=1))
    assert pod.train() == Exit.DONE
    result = pod.store.get_json(names.result_key(pod.prefix), Result)
    assert result.wandb == "CommError: *** may not write Traceback"


def test_secrets_are_nowhere_to_be_read(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PLAIN_NAME", SECRET)
    source = """        import os
        os.write(1, b"the reward prints " + os.environb[b"PLAIN_NAME"] + b"\\n")
        raise ValueError("refused: " + os.environ["PLAIN_NAME"])
"""
    environment = {"secrets": ("PLAIN_NAME",)}
    pod = workshop.pod(
        resolved("grpo", environment=environment), sums(environment=SCORE + source + LOAD)
    )
    assert pod.train() == Exit.ENVIRONMENT
    assert "ValueError: refused: ***" in pod.termination.message
    everything = [pod.store.get_bytes(pod.prefix + key) for key in pod.keys]
    assert not any(SECRET.encode() in data for data in everything)
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    assert "the reward prints ***" in log
    for key in (workshop.access.secret_key, workshop.access.access_key):
        assert not any(key.encode() in data for data in everything)


def test_no_cpu_takes_the_place_of_a_gpu_that_cannot_be_used(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import torch

    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(run_attempt, "_DEVICES", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pod = workshop.pod(resolved("sft"))
    assert pod.train() == Exit.GPU_FAULT
    assert pod.termination.reason == "GpuFault"


def test_storage_that_is_away_is_a_temporary_failure(workshop: Workshop):
    pod = workshop.pod(resolved("sft"))
    away = workshop.access.model_copy(update={"endpoint": "http://127.0.0.1:1"})
    (pod.folder / "access.json").write_text(away.model_dump_json())
    assert pod.train() == Exit.TEMPORARY
    assert pod.termination.reason == "StorageUnavailable"
    assert "connection was refused" in pod.termination.message


@pytest.mark.parametrize("failing", ["while it is loaded", "while it makes prompts"])
def test_an_environment_that_has_worked_before_is_a_temporary_failure(
    workshop: Workshop, failing: str
):
    away = """
from pathlib import Path

def ask():
    if Path(__file__).with_name("away").exists():
        raise ConnectionError("no answer")
"""
    called = {
        "while it is loaded": (LOAD, LOAD.replace("return", "ask()\n    return")),
        "while it makes prompts": ("        return [", "        ask()\n        return ["),
    }[failing]
    source = (HEAD + "    def score_response(self, *_): ..." + LOAD).replace(*called)
    pod = workshop.pod(
        resolved("sft", max_steps=60, epochs=9, save_every=20), sums(environment=away + source)
    )
    with forks.started(pod) as process:
        pod.wait_for(lambda: pod.steps(names.STATE_MANIFEST) or process.exitcode is not None)
        assert process.exitcode is None, pod.output
        forks.kill(process)
    second = pod.next()
    (second.inside.environment / "away").touch()
    assert second.train() == Exit.TEMPORARY
    assert second.termination.reason == "EnvironmentUnavailable"
    assert "ConnectionError: no answer (it has worked in an earlier" in second.termination.message
    assert not pod.store.exists(names.result_key(pod.prefix))
    assert second.next().train() == Exit.DONE
    # In a first attempt nobody knows that it could work.
    first = workshop.pod(resolved("sft", max_steps=1), sums(environment=away + source))
    (first.inside.environment / "away").touch()
    assert first.train() == Exit.ENVIRONMENT


def test_a_spec_that_cannot_be_read_is_a_config_error(workshop: Workshop):
    pod = workshop.pod(resolved("sft"))
    (pod.folder / "spec.json").write_text("{}")
    assert pod.train() == Exit.CONFIG
    assert pod.termination.reason == "SpecInvalid"


def test_an_attempt_lists_its_packages_also_when_it_fails(workshop: Workshop):
    pod = workshop.pod(resolved("sft"), sums(environment="import a_module_that_nobody_has"))
    own = pod.inside.site / "thing-1.2.dist-info"
    own.mkdir()
    (own / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.2\n")
    assert pod.train() == Exit.ENVIRONMENT
    listed = pod.store.get_bytes(names.packages_key(pod.prefix, 1)).decode().splitlines()
    assert {"thing==1.2", *installed_pins()} == set(listed)
