"""Which keys of ``train`` an algorithm uses."""

import pytest

from flashrun.api.config import Algorithm, EnvironmentConfig, RunConfig
from flashrun.cli.config.train_values import UNUSED_KEYS
from flashrun.plan.resolve import resolve_train


@pytest.mark.parametrize("algorithm", Algorithm)
def test_only_keys_that_the_algorithm_uses_have_values(algorithm: Algorithm) -> None:
    environment = EnvironmentConfig(id="org/env")
    config = RunConfig(model="m", algorithm=algorithm, environment=environment)
    values = resolve_train(config).model_dump(mode="json")

    assert not values.keys() & UNUSED_KEYS[algorithm]
    assert ("epochs" in values) == (algorithm is Algorithm.SFT)
    assert ("steps" in values) == (algorithm is Algorithm.GRPO)
