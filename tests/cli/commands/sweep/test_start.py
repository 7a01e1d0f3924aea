"""``flash sweep start``: a family of runs from one file."""

import json

import yaml

from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import REFERENCE, Shell

SWEEP = 'config = "config.toml"\n[grid]\ntrain.epochs = [1, 2]\n'


def test_a_dry_run_lists_the_runs_and_needs_no_cluster(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE)
    shell.write("epochs.toml", SWEEP)
    done = shell("sweep", "epochs.toml", "--dry-run", "--limit", "2", "-o", "json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["sweep"] == {"name": "epochs", "limit": 2}
    assert [run["sets"] for run in answer["runs"]] == [["train.epochs=1"], ["train.epochs=2"]]
    assert shell("sweep", "start", "epochs.toml", "--dry-run").returncode == 0
    assert shell("sweep", "--dry-run", "epochs.toml").returncode == 0


def test_a_sweep_is_rendered_as_the_runs_that_would_be_submitted(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE)
    shell.write("epochs.toml", SWEEP)
    planned = shell("sweep", "epochs.toml", "--dry-run", "-o", "name").stdout.split()
    found = list(yaml.safe_load_all(shell("render", "epochs.toml", "-n", "team-a").stdout))
    assert [item["metadata"]["name"] for item in found] == planned
    assert shell("render", "epochs.toml", "-o", "name").stdout.split() == planned
    assert {item["metadata"]["labels"]["flashrun.dev/sweep"] for item in found} == {"epochs"}
    assert [item["spec"]["train"]["epochs"] for item in found] == [1, 2]
    assert all(item["spec"]["sweep"] == {"name": "epochs"} for item in found)
    listed = json.loads(shell("render", "epochs.toml", "-n", "team-a", "-o", "json").stdout)
    assert (listed["kind"], listed["items"]) == ("List", found)


def test_rendered_runs_of_a_sweep_share_a_secret(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE.replace("[train]", 'secrets = ["A"]\n[train]'))
    shell.write("epochs.toml", SWEEP)
    done = shell("render", "epochs.toml")
    assert done.stderr.count("create secret generic epochs-env") == 1
    found = list(yaml.safe_load_all(done.stdout))
    assert all(item["spec"]["secretRefs"] == [{"name": "epochs-env"}] for item in found)


def test_a_sweep_names_its_configs_itself(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE)
    shell.write("epochs.toml", SWEEP)
    done = shell("render", "epochs.toml", "--config", "config.toml")
    assert done.returncode == ExitCode.USAGE
    assert "leave out --config" in done.stderr


def test_the_help_of_the_group_says_what_the_short_form_means(shell: Shell) -> None:
    done = shell("sweep", "--help")
    assert "flash sweep … is short for flash sweep start …" in done.stdout
    assert shell("sweep").stdout == "" or "status" in shell("sweep").stdout
