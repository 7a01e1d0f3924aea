"""Training for real, on the tiny model: it learns, and every knob does what it says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import Result
from flashrun_trainer.data import stopping
from tests.trainer import forks
from tests.trainer.pods import Workshop, fifths, resolved, rows, sums

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


def test_sft_learns_and_leaves_everything_a_run_leaves(workshop: Workshop):
    pod = workshop.pod(resolved("sft", epochs=3, save_every=20))

    assert pod.train() == Exit.DONE

    first, last = fifths(pod.values("loss"))
    assert last < first / 2
    assert [row.step for row in pod.metrics] == list(range(1, 49))
    assert pod.steps() == [(1, 20), (1, 40), (1, 48)]
    assert (pod.adapter.base_model, pod.adapter.lora_rank, pod.adapter.lora_alpha) == (
        "flashrun/tiny-qwen3",
        8,
        16,
    )
    assert {file.path for file in pod.adapter.files} == {
        "attempt-1/adapter_model.safetensors",
        "attempt-1/adapter_config.json",
        "attempt-1/README.md",
        "attempt-1/run.json",
        "attempt-1/packages.txt",
    }
    result = pod.store.get_json(names.result_key(pod.prefix), Result)
    assert (result.exit_code, result.termination) == (0, None)
    assert result.progress is not None
    assert result.progress.step == 48
    assert not pod.store.exists(names.heartbeat_key(pod.run.run.uid))
    assert "spec.json" in pod.keys
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    assert "training on the CPU" in log
    assert "attempt 1 ends with code 0" in log


def test_an_adapter_names_its_base_model_and_not_the_pods_folder(workshop: Workshop):
    pod = workshop.pod(resolved("sft", max_steps=2))
    pod.train()
    config = json.loads(pod.published("adapter_config.json"))
    assert config["base_model_name_or_path"] == "flashrun/tiny-qwen3"


def test_max_steps_and_max_examples_cap_an_sft_run(workshop: Workshop):
    capped = workshop.pod(resolved("sft", max_steps=3))
    few = workshop.pod(resolved("sft", max_examples=16, epochs=2))
    assert [capped.train(), few.train()] == [0, 0]
    assert [len(capped.metrics), len(few.metrics)] == [3, 4]


def test_what_an_environment_draws_is_the_same_in_every_attempt(workshop: Workshop):
    source = sums()["environment.py"].replace(
        "class ", "import random\n\nWORD = random.choice(range(10**9))\n\n\nclass ", 1
    )
    source = source.replace("example.input", "f'{example.input} {WORD}'")
    pods = [workshop.pod(resolved("sft", max_steps=2), sums(environment=source)) for _ in range(2)]
    assert [pod.train() for pod in pods] == [0, 0]
    assert pods[0].values("loss") == pods[1].values("loss")


def test_advantage_clip_is_recorded_and_changes_nothing(workshop: Workshop):
    plain = workshop.pod(resolved("grpo", steps=3))
    clipped = workshop.pod(resolved("grpo", steps=3, advantage_clip=0.001))
    assert [plain.train(), clipped.train()] == [0, 0]
    assert plain.weights == clipped.weights
    spec = json.loads(clipped.store.get_bytes(names.spec_key(clipped.prefix)))
    assert spec["train"]["advantage_clip"] == 0.001


def test_the_kl_penalty_measures_the_distance_to_the_base_model(workshop: Workshop):
    free = workshop.pod(resolved("grpo", steps=4))
    bound = workshop.pod(resolved("grpo", steps=4, kl_penalty_coef=0.5))
    assert [free.train(), bound.train()] == [0, 0]
    assert free.values("kl") == []
    assert bound.values("kl")[0] == pytest.approx(0, abs=1e-6)
    assert bound.values("kl")[-1] > 0
    assert free.weights != bound.weights


SHORT: dict[str, dict[str, Any]] = {"sft": {"max_steps": 4}, "grpo": {"steps": 4}}
PENALTY = {"kl_penalty_coef": 0.1}


@pytest.mark.parametrize("algorithm", ["sft", "grpo"])
def test_a_warm_start_goes_on_from_the_adapter(workshop: Workshop, algorithm: str):
    source = workshop.pod(resolved("sft", epochs=3, save_every=20))
    assert source.train() == 0
    end = fifths(source.values("loss"))[1]

    knobs = {"max_steps": 3} if algorithm == "sft" else {"steps": 3, "kl_penalty_coef": 0.1}
    changes = {"learning_rate": 1e-5, "init_from_adapter": source.as_source(), **knobs}
    warm = workshop.pod(resolved(algorithm, **changes))
    assert warm.train() == 0

    if algorithm == "sft":
        assert warm.values("loss")[0] == pytest.approx(end, rel=0.5)
    assert warm.adapter.lora_rank == 8
    assert not any(file.path.startswith("ref") for file in warm.adapter.files)


@pytest.mark.parametrize(
    ("algorithm", "knobs"),
    [("sft", {"max_steps": 1}), ("grpo", {"steps": 1}), ("grpo", {"steps": 1, **PENALTY})],
    ids=["sft", "grpo", "grpo with a penalty"],
)
@pytest.mark.parametrize("before", ["sft", "grpo"])
def test_a_warm_start_from_a_step_begins_with_the_weights_of_that_step(
    workshop: Workshop, before: str, algorithm: str, knobs: dict[str, Any]
):
    import torch
    from safetensors.torch import load

    source = workshop.pod(resolved(before, save_every=2, **SHORT[before]))
    assert source.train() == 0
    start = source.as_source(step=2)

    # So slow that a step moves nothing that a float can hold.
    warm = workshop.pod(resolved(algorithm, learning_rate=1e-15, init_from_adapter=start, **knobs))
    assert warm.train() == 0

    name = "adapter_model.safetensors"
    there, end, here = (
        torch.cat([weight.flatten() for _, weight in sorted(load(data).items())])
        for data in (
            source.store.get_bytes(f"{start.prefix}adapter/{name}"),
            source.published(name),
            warm.published(name),
        )
    )
    assert torch.allclose(here, there, rtol=0, atol=1e-9)
    assert not torch.allclose(here, end, rtol=0, atol=1e-9)
    log = warm.store.get_bytes(names.log_key(warm.prefix, 1)).decode()
    assert re.search(rf"starting from adapter {start.ref} with \d{{4,}} trainable weights", log)


def test_an_adapter_that_is_gone_is_named(workshop: Workshop):
    source = workshop.pod(resolved("sft"))
    warm = workshop.pod(resolved("sft", init_from_adapter=source.as_source()))
    assert warm.train() == Exit.MODEL_UNAVAILABLE
    assert source.run.run.name in warm.termination.message


THINKING = """
import json
from pathlib import Path

from freesolo.environments import EnvironmentSingleTurn, RewardResult


class Watching(EnvironmentSingleTurn):
    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": example.input}]

    def score_response(self, example, response_text):
        seen = [str(response_text), response_text.thinking, response_text.raw]
        with Path(__file__).with_name("seen.jsonl").open("a") as file:
            file.write(json.dumps(seen) + chr(10))
        return RewardResult(score=1.0)


def load_environment():
    return Watching()
"""


def test_a_scorer_sees_the_answer_and_the_reasoning_beside_it(workshop: Workshop):
    run = resolved("grpo", steps=2, thinking=True, thinking_length_penalty_coef=0.1, max_tokens=12)
    pod = workshop.pod(run, sums(environment=THINKING))
    assert pod.train() == Exit.DONE
    text = (pod.inside.environment / "seen.jsonl").read_text()
    seen = [json.loads(line) for line in text.splitlines()]
    assert len(seen) == 16
    for answer, thinking, raw in seen:
        assert "<think>" not in answer
        assert answer in raw
        assert thinking in raw


@pytest.mark.parametrize(("thinking", "answer"), [(True, "7"), (False, "<think>1</think>7")])
def test_reasoning_is_left_out_of_what_is_scored_only_of_a_run_that_thinks(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, thinking: bool, answer: str
):
    monkeypatch.setattr(stopping, "text_until_stop", lambda *_: "<think>1</think>7")
    pod = workshop.pod(resolved("grpo", steps=1, thinking=thinking), sums(environment=THINKING))
    assert pod.train() == Exit.DONE
    text = (pod.inside.environment / "seen.jsonl").read_text()
    assert {json.loads(line)[0] for line in text.splitlines()} == {answer}


def test_prompts_without_room_for_a_completion_are_dropped(workshop: Workshop, tmp_path: Path):
    long = "What is " + "1 plus " * 60
    data = rows(("What is 1 plus 1?", "2"), (long, "60"), ("What is 2 plus 2?", "4"))
    pod = workshop.pod(resolved("grpo", steps=2, batch_size=8), sums(train=data))
    assert pod.train() == Exit.DONE
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    assert "1 of 3 prompts are longer than max_length - max_tokens = 120 tokens: dropped" in log
    assert "batch_size = 8 is lowered to 2 (prompts: 2, processes: 1)" in log


def test_a_run_says_where_it_is_while_it_runs(workshop: Workshop):
    pod = workshop.pod(resolved("sft", max_steps=100_000, epochs=100_000, save_every=100))
    with forks.started(pod):
        heartbeat = pod.wait_for(lambda: (found := pod.heartbeat) and found.commits and found)
    assert heartbeat.progress is not None
    assert (heartbeat.activity, heartbeat.attempt, heartbeat.progress.total_steps) == (
        "Training",
        1,
        100_000,
    )
    assert heartbeat.progress.metrics["loss"] > 0
    assert heartbeat.progress.eta_seconds is not None
