"""References that people type: with --best a run, else whatever names an adapter."""

import pytest

from flashrun.api.names import Ref
from flashrun.cli.adapter_refs import parse_with_best
from flashrun.cli.output.failure import UsageFailure


def test_a_reference_is_read_and_best_takes_a_run_alone() -> None:
    assert parse_with_best("run/step-5", best=False, command="pull") == Ref("run", 5)
    assert parse_with_best("run", best=True, command="pull") == Ref("run", None)
    with pytest.raises(UsageFailure, match="--best chooses the checkpoint, and run/step-5"):
        parse_with_best("run/step-5", best=True, command="pull")
    with pytest.raises(UsageFailure):
        parse_with_best("Run", best=False, command="pull")
