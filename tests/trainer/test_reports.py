"""What a run leaves for those who ask what happened: every step's metrics, rollouts, the card."""

import json

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import Batching, Heartbeat, ResolvedRun
from flashrun.store import Store
from flashrun_trainer.pod.image_packages import installed_pins
from tests.trainer.pods import HEAD, TrainerPod, Workshop, resolved, rows, sums

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


def rollouts(pod: TrainerPod, step: int) -> list[dict]:
    text = pod.store.get_bytes(names.rollouts_key(pod.prefix, step)).decode()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def sft(workshop: Workshop) -> TrainerPod:
    pod = workshop.pod(resolved("sft", batch_size=8, epochs=2, max_examples=40, save_every=4))
    assert pod.train() == 0
    return pod


@pytest.fixture(scope="module")
def grpo(workshop: Workshop) -> TrainerPod:
    run = resolved("grpo", steps=3, max_tokens=8, kl_penalty_coef=0.1, save_every=2)
    pod = workshop.pod(run)
    assert pod.train() == 0
    return pod


@pytest.mark.parametrize(
    ("algorithm", "batching"),
    [
        ("sft", Batching(world_size=1, micro_batch_size=8, gradient_accumulation_steps=1)),
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
def test_every_phase_has_a_heartbeat_and_says_how_a_step_is_cut_up(
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
    assert beats[-1].progress is not None
    assert beats[-1].progress.step == beats[-1].progress.total_steps == 2


def test_every_step_has_its_metrics(sft: TrainerPod, grpo: TrainerPod):
    for pod, wanted in ((sft, EVERY_STEP), (grpo, EVERY_GRPO_STEP)):
        for row in pod.metrics:
            assert wanted - row.values.keys() == set()
        assert pod.metrics[0].values.keys() >= AT_THE_START
        assert not AT_THE_START & pod.metrics[1].values.keys()


def test_the_phases_of_a_step_add_up(grpo: TrainerPod):
    for row in grpo.metrics:
        phases = [value for name, value in row.values.items() if name.startswith("seconds/")]
        assert sum(phases) == pytest.approx(2 * row.values["seconds/step"])
    # The checkpoint of step 2 stood in the way of step 3.
    assert ["seconds/saving" in row.values for row in grpo.metrics] == [False, False, True]


def test_tokens_are_those_of_the_examples_without_filling(sft: TrainerPod, tiny_model):
    from flashrun_trainer import model
    from flashrun_trainer import sft as method
    from flashrun_trainer.data import environment

    tokenizer = model.load_tokenizer(tiny_model)
    data = environment.load(sft.inside, sft.run.environment)
    pairs = method.load_conversations(data, sft.run)
    found = method.tokenize_conversations(pairs, tokenizer, sft.run)
    assert sft.values("tokens")[-1] == 2 * sum(len(row.input_ids) for row in found)
    assert sft.values("tokens") == sorted(sft.values("tokens"))


def test_the_learning_rate_warms_up_and_falls_in_sft_and_stays_in_grpo(
    sft: TrainerPod, grpo: TrainerPod
):
    rates = sft.values("learning_rate")
    assert len(rates) == 10
    assert max(rates) == pytest.approx(5e-3)
    # One of ten steps is warm-up, and it learns like the others.
    assert rates[0] == pytest.approx(5e-3)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 5e-4
    assert grpo.values("learning_rate") == [5e-3] * 3


def test_the_warm_up_begins_above_zero(workshop: Workshop):
    long = workshop.pod(resolved("sft", epochs=10, batch_size=2, max_examples=14, save_every=100))
    assert long.train() == 0
    rates = long.values("learning_rate")
    assert len(rates) == 70
    assert rates[:3] == pytest.approx([5e-3 / 3, 5e-3 * 2 / 3, 5e-3])  # ceil(3 % of 70) steps
    assert rates[3] < rates[2]


def test_a_run_of_one_step_learns(workshop: Workshop):
    from safetensors.torch import load

    pod = workshop.pod(resolved("sft", batch_size=32, max_examples=20))
    assert pod.train() == 0
    assert pod.values("learning_rate") == [5e-3]
    learned = load(pod.published("adapter_model.safetensors"))
    assert any(weight.any() for name, weight in learned.items() if "lora_B" in name)


@pytest.mark.parametrize("most", [None, 100])
def test_means_count_every_token_once_however_a_step_is_cut_up(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, most: int | None
):
    from flashrun_trainer import trl_arguments

    monkeypatch.setattr(trl_arguments, "most_micro_batch_tokens", lambda _: most)
    pod = workshop.pod(resolved("sft", max_examples=9, epochs=2, learning_rate=1e-4))
    assert pod.train() == 0
    entropy = pod.values("entropy")
    # Nothing is learned at this rate, so all steps are equally unsure; the last of an epoch has
    # one example, and passes without any.
    assert entropy == pytest.approx([entropy[0]] * 4, rel=0.05)


def test_epochs_are_counted_as_the_config_does(sft: TrainerPod):
    assert sft.values("epoch") == pytest.approx([step / 5 for step in range(1, 11)])


def test_a_step_keeps_a_sample_of_its_rollouts_with_the_parts_of_the_reward(grpo: TrainerPod):
    for step in (1, 2, 3):
        kept = rollouts(grpo, step)
        assert len(kept) == 8
        for row in kept:
            assert row["step"] == step
            assert [message["role"] for message in row["prompt"]] == ["user"]
            assert row["metrics"].keys() == {"digits", "right"}
            parts = 0.5 * row["metrics"]["digits"] + 0.5 * row["metrics"]["right"]
            assert row["reward"] == row["score"] == pytest.approx(parts)


def test_completions_are_no_longer_than_max_tokens(grpo: TrainerPod):
    assert max(grpo.values("completions/max_length")) <= 8


def test_an_adapter_brings_its_card_its_spec_and_its_packages(sft: TrainerPod):
    card = sft.published("README.md").decode()
    for fact in (
        "base_model: flashrun/tiny-qwen3",
        f"| environment package, SHA-256 | {sft.run.environment.digest} |",
        "| examples of split train | 128 |",
        "| examples, SHA-256 | ",
        "| adapter at the start | fresh |",
        "| seed | 42 |",
        "| learning_rate | 0.005 |",
        "| loss | ",
    ):
        assert fact in card
    assert ResolvedRun.model_validate_json(sft.published("run.json")) == sft.run
    packages = sft.published("packages.txt").decode().splitlines()
    assert {"torch", "transformers", "trl", "peft"} <= {line.split("==")[0] for line in packages}


def test_an_attempt_lists_its_packages_also_when_it_fails(workshop: Workshop):
    pod = workshop.pod(resolved("sft"), sums(environment="import a_module_that_nobody_has"))
    own = pod.inside.site / "thing-1.2.dist-info"
    own.mkdir()
    (own / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.2\n")
    assert pod.train() == Exit.ENVIRONMENT
    listed = pod.store.get_bytes(names.packages_key(pod.prefix, 1)).decode().splitlines()
    assert {"thing==1.2", *installed_pins()} == set(listed)


def test_the_digest_of_the_examples_tells_two_datasets_apart(workshop: Workshop):
    from flashrun_trainer.data import environment

    digests = set()
    for data in (rows(("a", "b")), rows(("a", "c")), rows(("a", "b")) + "\n"):
        pod = workshop.pod(resolved("sft"), sums(train=data))
        digests.add(environment.load(pod.inside, pod.run.environment).digest)
    assert len(digests) == 2


def test_a_low_temperature_samples_the_same_again(workshop: Workshop):
    pod = workshop.pod(resolved("grpo", steps=1, temperature=1e-4))
    assert pod.train() == 0
    kept = rollouts(pod, 1)
    assert len({row["completion"] for row in kept[:4]}) == 1
    assert pod.values("frac_reward_zero_std") == [1.0]


REASONING = (
    HEAD
    + """
    def score_response(self, example, response_text):
        return RewardResult(score=len(response_text.thinking) / 1000)


def load_environment():
    return Environment()
"""
)


def test_reasoning_costs_its_coefficient_a_token(workshop: Workshop, tiny_model):
    from transformers import AutoTokenizer

    from flashrun_trainer.data.messages import Answer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    # A template that opens the reasoning itself, as those of models that always reason do.
    run = resolved("grpo", steps=1, thinking=True, thinking_length_penalty_coef=0.01)
    pod = workshop.pod(run, sums(environment=REASONING))
    folder = pod.inside.model_folder(pod.run)
    template = (folder / "chat_template.jinja").read_text()
    opened = template.replace(
        "{%- if enable_thinking is defined and enable_thinking is false %}",
        "{%- if enable_thinking %}{{ '<think>\\n' }}{%- else %}",
    )
    assert opened != template
    try:
        (folder / "chat_template.jinja").write_text(opened)
        assert pod.train() == 0, pod.termination
    finally:
        (folder / "chat_template.jinja").write_text(template)
    kept = rollouts(pod, 1)
    for row in kept:
        thought = Answer(row["completion"], opened=True).first_thought
        tokens = len(tokenizer(thought, add_special_tokens=False)["input_ids"])
        assert tokens > 0
        assert row["score"] - row["reward"] == pytest.approx(0.01 * tokens)
    assert pod.values("thinking_penalty")[0] > 0
