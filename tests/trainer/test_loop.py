"""What both methods share: metrics, heartbeats, a start from an adapter, a last save."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import Batching, Heartbeat, MetricsRow
from flashrun.api.trainer_choices import Layout
from flashrun.store import Store
from tests.trainer import forks
from tests.trainer.pods import TrainerPod, Workshop, fifths, resolved

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

EVERY_STEP = {
    "loss",
    "grad_norm",
    "learning_rate",
    "tokens",
    "tokens_per_second",
    "memory/peak_bytes",
    "seconds/step",
    "seconds/training",
}

EVERY_GRPO_STEP = EVERY_STEP | {
    "reward",
    "reward_std",
    "reward_errors",
    "kl",
    "entropy",
    "env/digits",
    "env/right",
    "completions/mean_length",
    "completions/clipped_ratio",
    "seconds/generation",
    "seconds/scoring",
}

AT_THE_START = {"startup/imports", "startup/loading", "startup/first_step"}


@pytest.mark.parametrize(
    ("algorithm", "batching"),
    [
        (
            "sft",
            Batching(
                world_size=1,
                micro_batch_size=8,
                gradient_accumulation_steps=1,
                layout=Layout.ROWS,
            ),
        ),
        (
            "grpo",
            Batching(
                world_size=1,
                micro_batch_size=8,
                gradient_accumulation_steps=1,
                generation_batch_size=8,
            ),
        ),
    ],
)
def test_every_phase_has_a_heartbeat_and_says_how_a_step_is_divided(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, algorithm: str, batching: Batching
):
    beats: list[Heartbeat] = []
    put = Store.put_json

    def watched(store: Store, key: str, value: object) -> None:
        if isinstance(value, Heartbeat):
            beats.append(value)
        put(store, key, value)

    monkeypatch.setattr(Store, "put_json", watched)
    knobs = {"max_steps": 2} if algorithm == "sft" else {"steps": 2}
    assert workshop.pod(resolved(algorithm, **knobs)).train() == 0
    phases = [beat.activity for beat in beats]
    assert list(dict.fromkeys(phases)) == ["Loading", "Training", "Uploading"]
    assert beats[-1].batching == batching
    assert beats[-1].adapted is not None
    assert beats[-1].adapted.percent == 100
    assert beats[-1].progress is not None
    assert beats[-1].progress.step == beats[-1].progress.total_steps == 2


def test_every_step_has_its_metrics(sft_run: TrainerPod, grpo_run: TrainerPod):
    for pod, wanted in ((sft_run, EVERY_STEP), (grpo_run, EVERY_GRPO_STEP)):
        for row in pod.metrics:
            assert wanted - row.values.keys() == set()
        assert pod.metrics[0].values.keys() >= AT_THE_START
        assert not AT_THE_START & pod.metrics[1].values.keys()


def test_the_phases_of_a_step_add_up(grpo_run: TrainerPod):
    for row in grpo_run.metrics:
        phases = [value for name, value in row.values.items() if name.startswith("seconds/")]
        assert sum(phases) == pytest.approx(2 * row.values["seconds/step"])
    # Step 3 waited for the checkpoint of step 2.
    assert ["seconds/saving" in row.values for row in grpo_run.metrics] == [False, False, True]


def test_the_learning_rate_warms_up_and_falls_in_sft_and_stays_in_grpo(
    sft_run: TrainerPod, grpo_run: TrainerPod
):
    rates = sft_run.values("learning_rate")
    assert len(rates) == 10
    assert max(rates) == pytest.approx(5e-3)
    # One of ten steps is warm-up, and it learns like the others.
    assert rates[0] == pytest.approx(5e-3)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 5e-4
    assert grpo_run.values("learning_rate") == [5e-3] * 3


SHORT: dict[str, dict[str, Any]] = {"sft": {"max_steps": 4}, "grpo": {"steps": 4}}
PENALTY = {"kl_penalty_coef": 0.1}


@pytest.fixture(scope="module")
def long_run(workshop: Workshop) -> TrainerPod:
    """A run of SFT that has learned something."""
    pod = workshop.pod(resolved("sft", epochs=3, save_every=20))
    assert pod.train() == 0
    return pod


@pytest.mark.parametrize("algorithm", ["sft", "grpo"])
def test_a_warm_start_continues_from_the_adapter(
    workshop: Workshop, long_run: TrainerPod, algorithm: str
):
    source = long_run
    end = fifths(source.values("loss"))[1]

    knobs = {"max_steps": 3} if algorithm == "sft" else {"steps": 3, "kl_penalty_coef": 0.1}
    changes = {"learning_rate": 1e-5, "init_from_adapter": source.as_source(), **knobs}
    warm = workshop.pod(resolved(algorithm, **changes))
    assert warm.train() == 0

    if algorithm == "sft":
        assert warm.values("loss")[0] == pytest.approx(end, rel=0.5)
    assert warm.adapter.lora_rank == 8
    assert not any(file.path.startswith("ref") for file in warm.adapter.files)


@pytest.fixture(scope="module", params=SHORT)
def source(request: pytest.FixtureRequest, workshop: Workshop) -> TrainerPod:
    """A run of each method that has saved in the middle."""
    pod = workshop.pod(resolved(request.param, save_every=2, **SHORT[request.param]))
    assert pod.train() == 0
    return pod


@pytest.mark.parametrize(
    ("algorithm", "knobs"),
    [("sft", {"max_steps": 1}), ("grpo", {"steps": 1}), ("grpo", {"steps": 1, **PENALTY})],
    ids=["sft", "grpo", "grpo with a penalty"],
)
def test_a_warm_start_from_a_step_begins_with_the_weights_of_that_step(
    workshop: Workshop, source: TrainerPod, algorithm: str, knobs: dict[str, Any]
):
    import torch
    from safetensors.torch import load

    start = source.as_source(step=2)

    # With this learning rate, a step changes no float.
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


def test_weights_that_are_not_finite_are_not_saved(workshop: Workshop):
    pod = workshop.pod(resolved("sft", learning_rate=1e30, epochs=3, save_every=100))
    assert pod.train() == Exit.DIVERGED
    assert pod.steps() == []


def test_weights_that_are_not_finite_are_not_saved_even_if_the_loss_is_finite(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    from flashrun_trainer.checkpoint import TrainingObjects

    monkeypatch.setattr(TrainingObjects, "weights_are_finite", lambda _: False)
    pod = workshop.pod(resolved("sft", max_steps=1))
    assert pod.train() == Exit.DIVERGED
    assert pod.termination.message == "a weight is nan at step 1: training diverged"
    assert pod.steps() == []
    assert not pod.store.exists(names.adapter_prefix(pod.prefix) + names.MANIFEST)


def test_a_gpu_that_runs_out_of_memory_keeps_what_was_learned_and_says_what_to_lower(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    import torch
    from trl import SFTTrainer

    step = SFTTrainer.training_step

    def starved(trainer: SFTTrainer, *rest: Any, **more: Any) -> Any:
        if trainer.state.global_step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(trainer, *rest, **more)

    monkeypatch.setattr(SFTTrainer, "training_step", starved)
    pod = workshop.pod(resolved("sft", save_every=100))
    assert pod.train() == Exit.CUDA_OUT_OF_MEMORY
    assert pod.termination.message == (
        "the GPU ran out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.)"
    )
    assert "train.max_length" in pod.termination.hint
    assert (pod.termination.peak_memory_bytes or 0) > 1 << 20
    assert pod.steps() == [(1, 3)]


def test_a_step_whose_loss_is_lost_with_another_rank_is_trained_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    """Ranks gather the loss after the step: a rank that is killed in between takes it along."""
    from trl import SFTTrainer

    from flashrun_trainer.pod.trainer_errors import TrainerError

    log_and_save = SFTTrainer._maybe_log_save_evaluate

    def cut_off(trainer: SFTTrainer, *rest: Any, **more: Any) -> Any:
        if trainer.state.global_step == 6:
            raise TrainerError(Exit.TEMPORARY, Reason.NCCL_FAILED, "a peer has gone", "")
        return log_and_save(trainer, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(SFTTrainer, "_maybe_log_save_evaluate", cut_off)
        pod = workshop.pod(resolved("sft", max_steps=8, save_every=4))
        assert pod.train() == Exit.TEMPORARY
    assert pod.steps() == [(1, 4)]
    pod = pod.next()
    assert pod.train() == Exit.DONE
    assert [(row.step, row.attempt) for row in pod.metrics] == [
        *((step, 1) for step in range(1, 5)),
        *((step, 2) for step in range(5, 9)),
    ]


def test_of_the_metrics_only_the_last_row_stays_in_memory():
    from transformers import TrainerState

    from flashrun_trainer.loop import TrainingCallback

    rows: list[MetricsRow] = []
    reporter = SimpleNamespace(
        append_metrics=rows.append, set_progress=lambda progress: None, watch_phase=lambda _: None
    )
    context: Any = SimpleNamespace(
        attempt=SimpleNamespace(number=1),
        reporter=reporter,
        tracker=SimpleNamespace(log=lambda step, values: None),
        pod=SimpleNamespace(packages=Path("none")),
    )
    callback, state, nothing = TrainingCallback(context), TrainerState(max_steps=50), None
    for step in range(1, 51):
        state.global_step = step
        state.log_history.append({"loss": 1.0, "step": step})
        callback.on_log(nothing, state, nothing, {"loss": 1.0})

    assert [row.step for row in rows] == list(range(1, 51))
    assert state.log_history == [{"loss": 1.0, "step": 50}]
