"""``flash metrics``: the metrics of training and evaluation, by step."""

import csv
import json
from collections.abc import Mapping, Sequence

from flashrun.api import names
from flashrun.cli.cluster.metrics_history import merge_steps
from flashrun.cli.commands import metrics
from flashrun.cli.output.failure import ExitCode
from flashrun.cli.output.tables import plain_rows
from tests.cli.shell import Served
from tests.cli.storage import metrics_history, metrics_rows

ROWS: Sequence[Mapping[int, Mapping[str, float]]] = (
    {0: {"eval/score": 0.25}}, {1: {"loss": 2.0, "grad": 1.0}}, {2: {"loss": 1.0}},
    {2: {"eval/score": 0.5}}, {3: {"loss": 1.5}},
)  # fmt: skip
STEPS = merge_steps(metrics_rows(*ROWS))
KEYS = ["eval/score", "loss", "grad"]


def test_training_and_evaluation_of_a_step_are_one_row() -> None:
    assert STEPS == {
        0: {"eval/score": 0.25},
        1: {"loss": 2.0, "grad": 1.0},
        2: {"loss": 1.0, "eval/score": 0.5},
        3: {"loss": 1.5},
    }


def test_without_a_key_there_is_one_row_per_metric() -> None:
    assert plain_rows(metrics.summary_table(STEPS, KEYS)) == [
        "eval/score\t0.5\t0.25\t0.5\t2",
        "loss\t1.5\t1\t2\t3",
        "grad\t1\t1\t1\t1",
    ]


def test_with_keys_there_is_one_row_per_step_that_has_one_of_them() -> None:
    assert plain_rows(metrics.steps_table(STEPS, ["eval/score", "grad"])) == [
        "0\t0.25\t",
        "1\t\t1",
        "2\t0.5\t",
    ]


def test_metrics_are_printed_as_a_table_as_csv_and_as_json(served: Served, run: str) -> None:
    uid = served.get("flashrun", run)["metadata"]["uid"]
    prefix = names.run_prefix(served.namespace, run, uid)
    done = served.flash("metrics", run)
    assert (done.returncode, done.stdout) == (ExitCode.NOT_FOUND, "")
    assert f"{run} has no metrics yet" in done.stderr
    trained_again = ({3: {"loss": 9.0}}, {4: {"loss": 9.0}})
    for attempt, after, rows in ((1, 0, (*ROWS[:4], *trained_again)), (2, 2, ROWS[4:])):
        key = names.metrics_part_key(prefix, attempt, after, 0)
        served.store.put_bytes(key, metrics_history(*rows))

    assert served.flash("metrics", run, "loss").stdout == "1\t2\n2\t1\n3\t1.5\n"
    table = list(csv.DictReader(served.flash("metrics", run, "--csv").stdout.splitlines()))
    assert table[1] == {"step": "1", "eval/score": "", "loss": "2.0", "grad": "1.0"}
    data = json.loads(served.flash("metrics", run, "eval/*", "--json").stdout)
    assert data == [{"step": 0, "eval/score": 0.25}, {"step": 2, "eval/score": 0.5}]
    refused = served.flash("metrics", run, "--csv", "--json")
    assert (refused.returncode, refused.stdout) == (ExitCode.USAGE, "")
