"""What the trainer does with the answers of an engine that is not the model it trains.

The engine is a stand-in for vLLM, which tells us what it has reported.
"""

import math
import random
import statistics
from itertools import chain
from typing import Any

import pytest

from flashrun.api.exits import Exit
from flashrun.api.records import Scale
from flashrun.store_errors import StoreError
from tests.trainer import forks, stand_in_engine
from tests.trainer.engines import ENGINES
from tests.trainer.pods import TrainerPod, Workshop, resolved, sums
from tests.trainer.stand_in_engine import StaleEngine, StandInEngine

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


class NoisyEngine(StandInEngine):
    """Differs from the trainer as vLLM does in bf16: deviation 0.06 and mean -0.0019 a token."""

    random: random.Random
    noise: list[list[float]]
    """Log-probability of the trainer minus the reported one, of every token of the step."""

    def disturbed(self, logprobs: list[float]) -> list[float]:
        noise = [self.random.gauss(-0.0019, 0.06) for _ in logprobs]
        self.noise.append(noise)
        return [own - difference for own, difference in zip(logprobs, noise, strict=True)]


LENGTHS = """
from freesolo.environments import EnvironmentSingleTurn, RewardResult


class Environment(EnvironmentSingleTurn):
    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": str(example.input)}]

    def score_response(self, example, response_text):
        return RewardResult(score=float(len(response_text)))


def load_environment():
    return Environment()
"""


def test_the_correction_weighs_long_completions_like_short_ones(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    from flashrun_trainer.grpo import GrpoTrainer

    stand_in_engine.install(monkeypatch, NoisyEngine)
    NoisyEngine.random, NoisyEngine.noise = random.Random(7), []
    batches: list[dict[str, Any]] = []
    generate = GrpoTrainer._generate_and_score_completions

    def watched(trainer: GrpoTrainer, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batches.append(generate(trainer, inputs))
        return batches[-1]

    monkeypatch.setattr(GrpoTrainer, "_generate_and_score_completions", watched)
    run = resolved("grpo", steps=1, batch_size=2, group_size=8, max_tokens=384, max_length=512)
    pod = workshop.pod(run, sums(environment=LENGTHS))
    assert pod.train() == Exit.DONE, pod.termination

    (batch,) = batches
    assert statistics.stdev(chain.from_iterable(NoisyEngine.noise)) == pytest.approx(0.06, rel=0.1)
    weights = {}
    for index, noise in enumerate(NoisyEngine.noise):
        factors = [min(math.exp(difference), 2.0) for difference in noise]
        used = batch["importance_sampling_ratio"][index].tolist()[: len(noise)]
        assert used == pytest.approx(factors, abs=1e-3)
        assert min(factors) > 0.5
        assert max(factors) < 2
        weights[len(noise), index] = sum(factors) / len(factors)
    longest = [weight for (length, _), weight in weights.items() if length == 384]
    assert longest
    assert longest == pytest.approx([1.0] * len(longest), abs=0.02)
    # TRL's default multiplies with the product of all ratios, or with 0 if it is above 3. How many
    # completions are long differs between versions of PyTorch, the stream of noise does not.
    stream = list(chain.from_iterable(NoisyEngine.noise))
    pieces = [stream[begin : begin + 384] for begin in range(0, len(stream) - 384, 384)]
    products = [math.exp(sum(piece)) for piece in pieces]
    assert sum(not 0.5 < product < 3 for product in products) > len(products) / 3

    means = {"1-64": (1, 64), "65-256": (65, 256), "257-1024": (257, 1024)}
    for name, (least, most) in means.items():
        expected = [value for (length, _), value in weights.items() if least <= length <= most]
        reported = pod.values(f"sampling/weight/{name}")
        assert reported == pytest.approx([statistics.fmean(expected)] if expected else [], abs=1e-3)
    # The loss by hand: every token weighs its factor / (completions x max_tokens).
    products = [
        advantage * sum(min(math.exp(difference), 2.0) for difference in noise)
        for advantage, noise in zip(batch["advantages"].tolist(), NoisyEngine.noise, strict=True)
    ]
    assert pod.values("loss") == pytest.approx([-sum(products) / (16 * 384)], rel=1e-3)


# --- a sampler that is not the policy -----------------------------------------------------------

MOVING: dict[str, Any] = {"learning_rate": 0.02, "max_tokens": 16, "group_size": 8}
"""A run whose policy moves far in every step."""


def stale_pod(workshop: Workshop, **changes: Any) -> TrainerPod:
    return workshop.pod(resolved("grpo", **MOVING | changes), sums(environment=LENGTHS))


def assert_stale(pod: TrainerPod, step: int) -> None:
    """Assert that the run has ended for good, in the sampling of this step."""
    assert pod.termination.reason == "SamplerStale"
    assert f"vLLM does not sample from the policy: in step {step} " in pod.termination.message
    assert pod.termination.step == step - 1


@pytest.fixture
def stale(monkeypatch: pytest.MonkeyPatch) -> type[StaleEngine]:
    """The engine that every run of a test samples with."""
    monkeypatch.setattr(StaleEngine, "syncs", 0)
    stand_in_engine.install(monkeypatch, StaleEngine)
    return StaleEngine


@pytest.mark.parametrize(
    "engine", [name for name in ENGINES if name != "transformers"], indirect=True
)
def test_an_engine_that_never_gets_the_weights_is_noticed_in_step_1_at_any_learning_rate(
    workshop: Workshop, engine: str, monkeypatch: pytest.MonkeyPatch
):
    from trl.trainer import grpo_trainer

    monkeypatch.setattr(grpo_trainer.VLLMGeneration, "sync_weights", lambda _: None)
    pod = stale_pod(workshop, learning_rate=1e-6)
    # A new adapter changes nothing yet: the base model that it samples from is the policy.
    assert pod.train() == Exit.SAMPLER_STALE
    assert_stale(pod, step=1)
    assert "no weights have reached it on rank 0" in pod.termination.message
    # Another attempt would end in the same way: it does not begin.
    assert pod.next().train() == Exit.SAMPLER_STALE


class ForgetfulEngine(StandInEngine):
    """Does not know the names of some layers with an adapter, and leaves them out."""

    def load(self, own: dict[str, Any], name: str, weight: Any) -> None:
        if "layers.1.mlp.down_proj" not in name:
            super().load(own, name, weight)


def test_an_engine_that_leaves_layers_out_is_noticed_in_step_1(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    stand_in_engine.install(monkeypatch, ForgetfulEngine)
    pod = stale_pod(workshop, learning_rate=1e-6)
    assert pod.train() == Exit.SAMPLER_STALE
    assert_stale(pod, step=1)
    assert "the weights of 1 of 14 layers have not reached it" in pod.termination.message
    assert "layers.1.mlp.down_proj" in pod.termination.message


def test_the_proof_of_the_first_copy_changes_no_bit_of_what_is_learned(
    workshop: Workshop, sft_run: TrainerPod, monkeypatch: pytest.MonkeyPatch
):
    from flashrun_trainer import sync_proof

    stand_in_engine.install(monkeypatch)
    run = {"steps": 2, "init_from_adapter": sft_run.as_source()}
    proven, unproven = stale_pod(workshop, **run), stale_pod(workshop, **run)
    assert proven.train() == Exit.DONE
    log = (proven.folder / "work" / "attempt.log").read_text()
    assert "the policy's weights have reached vLLM: 14 layers were written" in log
    monkeypatch.setattr(sync_proof, "layer_weights", lambda *_: ())
    assert unproven.train() == Exit.DONE
    assert proven.weights == unproven.weights
    assert proven.values("loss") == unproven.values("loss")


def test_an_engine_that_stops_getting_the_weights_is_noticed_in_the_next_step(
    workshop: Workshop, stale: type[StaleEngine], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stale, "syncs", 3)
    pod = stale_pod(workshop)
    assert pod.train() == Exit.SAMPLER_STALE
    assert_stale(pod, step=4)
    assert pod.values("sampling/disagreement") == pytest.approx([0.0] * 3, abs=1e-4)


@pytest.mark.usefixtures("stale")
def test_an_engine_without_the_adapter_that_a_run_starts_from_is_noticed_in_step_1(
    workshop: Workshop, sft_run: TrainerPod
):
    pod = stale_pod(workshop, init_from_adapter=sft_run.as_source())
    assert pod.train() == Exit.SAMPLER_STALE
    assert_stale(pod, step=1)


def test_an_engine_that_gets_the_adapter_of_another_run_or_of_the_attempt_before_is_the_policy(
    workshop: Workshop,
    sft_run: TrainerPod,
    stale: type[StaleEngine],
    monkeypatch: pytest.MonkeyPatch,
):
    # The engine fails while it samples step 3; the next attempt resumes with what step 2 has left.
    monkeypatch.setattr(stale, "syncs", 2)
    monkeypatch.setattr(stale, "error", StoreError("storage is away"))
    pod = stale_pod(workshop, init_from_adapter=sft_run.as_source(), steps=4, save_every=1)
    assert pod.train() == Exit.TEMPORARY
    monkeypatch.setattr(stale, "syncs", 4)
    assert pod.next().train() == Exit.DONE
    assert pod.values("sampling/disagreement") == pytest.approx([0.0] * 4, abs=1e-3)


TWO_RANKS = LENGTHS.replace(
    "\n\nclass",
    """
from tests.trainer import stand_in_engine

stand_in_engine.StaleEngine.rank = 1
stand_in_engine.install(engine=stand_in_engine.StaleEngine)

class""",
    1,
)


def test_all_processes_end_when_the_engine_of_one_is_not_the_policy(workshop: Workshop):
    run = resolved("grpo", scale=Scale(gpus=2), **MOVING)
    pod = workshop.pod(run, sums(environment=TWO_RANKS))
    assert forks.trained(pod) == Exit.SAMPLER_STALE, pod.output
    assert_stale(pod, step=1)
    assert "no weights have reached it on rank 1" in pod.termination.message
