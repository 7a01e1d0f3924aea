"""How the agreement of two engines is judged. In training: test_grpo_sampling."""

import math
import random
from collections.abc import Sequence

import pytest

from flashrun.api.exits import Exit
from flashrun_trainer.data import sampler_agreement
from flashrun_trainer.data.sampler_agreement import Disagreement
from flashrun_trainer.pod.trainer_errors import TrainerError


def test_the_weight_of_completions_is_reported_by_their_length():
    completions = [(0.9, 64), (1.1, 1), (0.5, 65), (2.0, 5000), (1.0, 1024), (0.8, 1025)]
    assert sampler_agreement.weight_metrics(completions) == {
        "sampling/weight/1-64": pytest.approx((0.9 + 1.1) / 2),
        "sampling/weight/65-256": 0.5,
        "sampling/weight/257-1024": 1.0,
        "sampling/weight/1025-4096": 0.8,
        "sampling/weight/4097-": 2.0,
    }


def test_a_step_without_learned_tokens_has_no_weights():
    assert sampler_agreement.weight_metrics([]) == {}


def of(differences: Sequence[float], unscored: int = 0) -> Disagreement:
    return Disagreement(
        unscored,
        len(differences),
        sum(differences),
        sum(map(abs, differences)),
        sum(difference**2 for difference in differences),
    )


def noise(count: int, deviation: float, seed: int = 7) -> list[float]:
    numbers = random.Random(seed)
    return [numbers.gauss(deviation**2 / 2, deviation) for _ in range(count)]


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("count", [1, 10, 100, 1000])
def test_the_noise_of_other_kernels_is_agreement_whatever_the_number_of_tokens(
    count: int, temperature: float
):
    for seed in range(100):
        rank = of(noise(count, 0.06 / temperature, seed))
        sampler_agreement.check_agreement([rank], temperature, 1)


def test_weights_that_have_not_reached_the_sampler_of_one_rank_end_the_run():
    sampler_agreement.check_arrival(["", ""], 1)
    with pytest.raises(TrainerError, match=r"in step 4 no weights have .* on rank 1") as caught:
        sampler_agreement.check_arrival(["", "no weights have reached it"], 4)
    assert caught.value.code == Exit.SAMPLER_STALE


@pytest.mark.parametrize("count", [1, 9])
def test_a_few_tokens_prove_nothing(count: int):
    sampler_agreement.check_agreement([of([5.0] * count)], 1.0, 1)


def test_one_token_far_off_among_a_thousand_is_agreement():
    sampler_agreement.check_agreement([of([*noise(1000, 0.06), 600.0])], 1.0, 1)


@pytest.mark.parametrize(
    ("temperature", "stale"), [(1.0, True), (0.5, False), (0.8, False), (2.0, True)]
)
def test_log_probabilities_of_another_policy_are_noticed_in_units_of_logits(
    temperature: float, stale: bool
):
    # The mean of the absolute values is 0.8 deviations.
    ranks = [of(noise(1000, 0.06)), of(noise(1000, 0.3))]
    if not stale:
        sampler_agreement.check_agreement(ranks, temperature, 7)
        return
    with pytest.raises(TrainerError) as error:
        sampler_agreement.check_agreement(ranks, temperature, 7)
    assert error.value.code == Exit.SAMPLER_STALE
    assert error.value.reason == "SamplerStale"
    assert "in step 7 its log-probabilities differ" in error.value.message
    assert f"on rank 1, more than {0.2 / temperature:g}" in error.value.message


def test_an_engine_without_log_probabilities_cannot_be_proven_to_be_the_policy():
    some = of([0.01] * 9, unscored=100)
    sampler_agreement.check_agreement([some, of([])], 1.0, 1)
    with pytest.raises(TrainerError, match="rank 1 got no log-probabilities from vLLM in step 3"):
        sampler_agreement.check_agreement([some, of([], unscored=2)], 1.0, 3)


def test_the_metrics_are_over_all_tokens_and_of_the_worst_rank():
    ranks = [of([0.1, -0.3]), of([0.5]), of([])]
    assert sampler_agreement.agreement_metrics(ranks, 0.5) == {
        "sampling/kl": pytest.approx(0.1),
        "sampling/disagreement": pytest.approx(0.25),
    }
    assert all(map(math.isnan, sampler_agreement.agreement_metrics([of([])], 1.0).values()))


@pytest.mark.trainer
def test_only_tokens_that_were_sampled_and_scored_are_compared():
    import torch

    nan = math.nan
    sampler = torch.tensor([[-1.0, -2.0, nan, 0.0], [-1.5, 9.0, -1.0, nan]])
    trainer = torch.tensor([[-1.5, -1.0, -1.0, 0.0], [-1.5, 1.0, nan, nan]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1]])
    # One token has no log-probability of the sampler; two have none of the trainer.
    assert sampler_agreement.measure(sampler, trainer, mask) == of([0.5, -1.0, 0.0], unscored=1)
