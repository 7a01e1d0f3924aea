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
from tests.trainer import stand_in_engine
from tests.trainer.pods import Workshop, resolved, sums
from tests.trainer.stand_in_engine import StandInEngine

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
