"""How the agreement of two engines is judged. In training: test_grpo_sampling."""

import pytest

from flashrun_trainer.data import sampler_agreement


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
