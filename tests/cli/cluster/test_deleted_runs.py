"""A run whose FlashRun was deleted is found in storage."""

import pytest

from flashrun.cli.cluster.deleted_runs import run_from_record
from flashrun.plan.pins import pinned_run
from flashrun.plan.resolve import resolve_eval, resolve_train
from tests.cli.shell import Served
from tests.cli.storage import store_spec
from tests.plan.worlds import World, make_run


def test_a_run_that_was_deleted_is_trained_again_from_storage(served: Served, run: str) -> None:
    store_spec(served, run)
    served.kubectl("delete", "flashrun", run)

    new = served.flash("rerun", run, "--set", "train.epochs=9", "--background").stdout.strip()

    done = served.flash("diff", run, new)
    assert "train.epochs\t3\t9" in done.stdout.splitlines()
    assert not [line for line in done.stdout.splitlines() if line.startswith("train.lora")]


EVALUATIONS = [
    {},
    {"enabled": False},
    {"max_examples": 64},
    {"split": "test", "every": 5, "samples": 4, "max_tokens": 9, "metric": "pass@4"},
]


@pytest.mark.parametrize("table", EVALUATIONS, ids=str)
@pytest.mark.parametrize("algorithm", ["sft", "grpo"])
def test_a_deleted_run_is_evaluated_again_as_it_was(
    table: dict[str, object], algorithm: str
) -> None:
    train = {"max_length": 128, "max_tokens": 64}
    run = World(make_run({"algorithm": algorithm, "train": train, "eval": table})).settled().run
    record = pinned_run(run)
    assert record is not None

    again = run_from_record(record).spec

    assert resolve_eval(again, resolve_train(again)) == record.eval
