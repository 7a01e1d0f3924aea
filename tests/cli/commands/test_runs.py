"""``flash runs``: the runs of a namespace."""

import json
import time

from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import Served


def test_runs_are_listed_newest_first(served: Served) -> None:
    served.push()
    first = served.submit()
    time.sleep(1.1)  # creation times have whole seconds
    second = served.submit()

    assert served.flash("runs", "-o", "name").stdout.split() == [second, first]
    assert [line.split("\t")[0] for line in served.flash("runs").stdout.splitlines()] == [
        second,
        first,
    ]


def test_runs_are_listed_by_their_best_scores(served: Served) -> None:
    served.push()
    scores = {served.submit(): score for score in ("0.25", "0.75", None)}
    for name, score in scores.items():
        if score is not None:
            best = {"step": 10, "score": score}
            served.report(name, evaluation={"metric": "score", "best": best})
    worst, best_run, unknown = scores

    done = served.flash("runs", "--sort", "score")

    found = [(line.split("\t")[0], line.split("\t")[-1]) for line in done.stdout.splitlines()]
    assert found == [(best_run, "0.75"), (worst, "0.25"), (unknown, "")]
    listed = json.loads(served.flash("runs", "--sort", "score", "-o", "json").stdout)
    assert [item["metadata"]["name"] for item in listed] == [best_run, worst, unknown]
    columns = served.kubectl("get", "flashruns").splitlines()
    assert "SCORE" in columns[0].split()
    assert any("0.75" in line.split() for line in columns if line.startswith(best_run))
    refused = served.flash("runs", "--sort", "size")
    assert (refused.returncode, refused.stdout) == (ExitCode.USAGE, "")


def test_a_namespace_that_does_not_exist_is_not_an_empty_one(served: Served) -> None:
    done = served.flash("runs", "-n", "nowhere")

    assert done.returncode == ExitCode.NOT_FOUND
    assert "the namespace nowhere does not exist" in done.stderr
