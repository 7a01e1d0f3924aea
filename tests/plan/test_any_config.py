"""Whatever config was accepted, one pass over its run is a decision, wherever the run stands."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings

from flashrun.api.reasons import Phase
from flashrun.api.resource import FlashRunSpec, FlashRunStatus
from flashrun.cli.config.compose import compose
from tests.api.strategies import configs, toml_file
from tests.plan import worlds
from tests.plan.worlds import World

WORLDS: dict[str, Callable[[World], World]] = {
    "nothing is there": lambda world: world.seeing(storage=worlds.StorageView()),
    "the environment is pushed": lambda world: world,
    "a pod trains": lambda world: world.settled().seeing(pods=(worlds.make_pod(),)),
    "a pod failed": lambda world: world.settled().seeing(pods=(worlds.make_pod(exit_code=1),)),
    "the adapter to start from is there": lambda world: world.stored(
        adapter_source=worlds.source_adapter()
    ),
    "the run is done": lambda world: world.stored(result=worlds.result(), adapter=worlds.ADAPTER),
    "it was cancelled": lambda world: world.settled().switched(cancel=True),
    "it is paused": lambda world: world.settled().switched(suspend=True),
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
@given(tables=configs)
@settings(max_examples=12, deadline=None)
def test_a_decision_never_raises(world: Callable[[World], World], tables: dict[str, Any]) -> None:
    spec = FlashRunSpec.from_config(compose([toml_file(tables)]).config)
    run = worlds.make_run().model_copy(update={"spec": spec})
    decision = world(World(run)).decide()

    assert decision.status is not None
    stored = FlashRunStatus.validate_manifest(decision.status.to_patch())
    assert stored.phase in Phase
