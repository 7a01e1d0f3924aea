"""The part of a spec that makes a run a member of a sweep."""

import pytest
from pydantic import ValidationError

from flashrun.api.config import RunConfig
from flashrun.api.names import SWEEP_LABEL
from flashrun.api.resource import FlashRunSpec, manifest
from flashrun.api.sweep import RUNGS_SHOWN, StopWorse, SweepMembership

CONFIG = RunConfig.validate_toml({"model": "a/b", "environment": {"id": "org/env"}})


@pytest.mark.parametrize(
    ("first", "factor", "last", "rungs"),
    [
        (10, 2, 9, ()),
        (10, 2, 10, (10,)),
        (10, 2, 45, (10, 20, 40)),
        (3, 3, 100, (3, 9, 27, 81)),
    ],
)
def test_rungs_are_the_first_step_and_its_multiples_by_powers_of_the_factor(
    first: int, factor: int, last: int, rungs: tuple[int, ...]
) -> None:
    assert StopWorse(first_step=first, factor=factor).rungs(last) == rungs


def test_the_number_of_rungs_is_bounded() -> None:
    assert len(StopWorse(first_step=1).rungs(2**60)) == RUNGS_SHOWN


def test_a_run_of_a_sweep_has_a_label_that_kubectl_selects_by() -> None:
    spec = FlashRunSpec.from_config(CONFIG, sweep=SweepMembership(name="ranks", limit=2))
    found = manifest("ranks-1", None, spec)
    assert found["metadata"]["labels"] == {SWEEP_LABEL: "ranks"}
    assert found["spec"]["sweep"] == {"name": "ranks", "limit": 2}
    alone = manifest("alone", None, FlashRunSpec.from_config(CONFIG))
    assert "labels" not in alone["metadata"]
    assert "sweep" not in alone["spec"]


@pytest.mark.parametrize("name", ["", "UPPER", "a" * 41, "1st", "ranks-", "a.b"])
def test_a_sweep_has_a_name_with_which_names_of_runs_can_begin(name: str) -> None:
    with pytest.raises(ValidationError):
        SweepMembership(name=name)
