"""``flash diff``: the settings in which two runs differ."""

import json

from flashrun.api.config import BudgetConfig
from flashrun.cli.commands import diff
from flashrun.cli.output.failure import ExitCode
from tests.cli.golden import golden_run
from tests.cli.shell import Served


def test_a_run_does_not_differ_from_itself() -> None:
    found = diff.flat_settings(golden_run("running"))

    assert diff.differences(found, found) == {}


def test_what_was_given_and_what_the_recipe_fills_in_are_the_same_value() -> None:
    old = golden_run("running")
    knobs = old.spec.train.model_copy(update={"kl_penalty_coef": 0.0})
    new = old.model_copy(update={"spec": old.spec.model_copy(update={"train": knobs})})

    assert old.spec.train.kl_penalty_coef is None
    assert diff.differences(diff.flat_settings(old), diff.flat_settings(new)) == {}


def test_runs_differ_in_what_was_given_and_in_what_the_platform_chose() -> None:
    old = golden_run("running")
    spec = old.spec.model_copy(update={"train": old.spec.train.model_copy(update={"steps": 7})})
    chosen = old.status.resolved.model_copy(update={"pool": "other"})  # type: ignore[union-attr]
    status = old.status.model_copy(update={"resolved": chosen})
    new = old.model_copy(update={"spec": spec, "status": status})

    assert diff.differences(diff.flat_settings(old), diff.flat_settings(new)) == {
        "train.steps": (diff.flat_settings(old)["train.steps"], 7),
        "platform.pool": (old.status.resolved.pool, "other"),  # type: ignore[union-attr]
    }


def test_runs_differ_in_their_budgets() -> None:
    old = golden_run("running")
    new = old.replace(spec=old.spec.replace(budget=BudgetConfig(gpu_hours=2)))
    assert diff.differences(diff.flat_settings(old), diff.flat_settings(new)) == {
        "budget.gpu_hours": (None, 2.0)
    }


def test_a_diff_names_each_setting_that_differs_with_both_values(served: Served, run: str) -> None:
    words = ("--set", "train.epochs=7", "--set", "environment.params.split=test", "--background")
    new = served.flash("rerun", run, *words).stdout.strip()
    served.report(run, resolved={"pool": "h100", "gpus": 1, "environmentDigest": "aa"})
    served.report(new, resolved={"pool": "h100", "gpus": 2, "environmentDigest": "aa"})

    done = served.flash("diff", run, new)

    assert done.returncode == ExitCode.OK
    assert done.stdout.splitlines() == [
        "train.epochs\t3\t7",
        "platform.gpus\t1\t2",
        'environment.params.split\t\t"test"',
    ]
    answer = json.loads(served.flash("diff", run, new, "-o", "json").stdout)
    assert answer["runs"] == [run, new]
    assert {"key": "train.epochs", "values": [3, 7]} in answer["differences"]
    assert {"key": "environment.params.split", "values": [None, "test"]} in answer["differences"]


def test_runs_that_do_not_differ_get_a_sentence(served: Served, run: str) -> None:
    done = served.flash("diff", run, run)

    assert (done.returncode, done.stdout) == (ExitCode.OK, "")
    assert f"{run} and {run} have the same settings" in done.stderr
    assert json.loads(served.flash("diff", run, run, "-o", "json").stdout)["differences"] == []


def test_a_diff_of_a_run_that_waits_says_what_is_not_known_yet(served: Served, run: str) -> None:
    told = served.flash("diff", run, run).stderr
    assert told.count(f"the platform has chosen nothing for {run} yet") == 1
