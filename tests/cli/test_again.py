"""Runs beside each other: rerun, diff, and how every command ends; on a real API server."""

import base64
import json
from typing import Any

import pytest
import yaml

from flashrun.api import names
from flashrun.api.catalog import Catalog
from flashrun.api.config import Algorithm
from flashrun.api.records import RunIdentity
from flashrun.api.resource import FlashRun
from flashrun.cli.output.failure import ExitCode
from flashrun.plan.resolve import resolve_run
from tests.cli.conftest import REFERENCE, Served, Shell

pytestmark = pytest.mark.api

WITH_SECRET = REFERENCE.replace("[train]", 'secrets = ["SERVICE_API_KEY"]\n\n[train]')


@pytest.fixture
def run(served: Served) -> str:
    """A run of the reference's example, which has ended."""
    served.push()
    name = served.submit()
    served.report(name, phase="Succeeded", adapter={"ref": name, "bytes": 1})
    return name


# --- rerun --------------------------------------------------------------------------------------


def test_a_rerun_is_the_old_run_with_changes(served: Served, run: str) -> None:
    served.flash.write("more.toml", "[train]\nepochs = 5\nlearning_rate = 2e-4\n")
    words = ("--config", "more.toml", "--set", "train.epochs=6", "--background")
    done = served.flash("rerun", run, *words)
    new = done.stdout.strip()

    old_spec, new_spec = (served.get("flashrun", name)["spec"] for name in (run, new))
    assert new_spec.pop("train") == {**old_spec.pop("train"), "epochs": 6, "learningRate": 2e-4}
    assert new_spec == old_spec


def test_a_rerun_is_checked_as_a_config_is(served: Served, run: str) -> None:
    done = served.flash("rerun", run, "--set", "train.lora_rank=65", "--set", "train.epochs=2")

    assert done.returncode == ExitCode.USAGE
    assert "--set train.lora_rank: 65 is above Qwen/Qwen3.5-4B's cap" in done.stderr
    assert served.count("flashrun") == 1


def test_a_dry_rerun_says_what_came_from_the_run(served: Served, run: str) -> None:
    words = ("--dry-run", "--set", "train.epochs=2", "-o", "json")
    answer = json.loads(served.flash("rerun", run, *words).stdout)

    assert answer["spec"]["train"]["epochs"] == 2
    assert answer["sources"]["train.epochs"] == "--set train.epochs"
    assert answer["sources"]["train.lora_rank"] == f"run {run}"
    assert answer["sources"]["train.batch_size"] == "recipe"
    assert served.count("flashrun") == 1


def test_a_rerun_takes_secrets_from_the_shell_and_never_from_the_old_run(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", WITH_SECRET)
    served.flash.variables["SERVICE_API_KEY"] = "the old value"
    old = served.submit()

    del served.flash.variables["SERVICE_API_KEY"]
    refused = served.flash("rerun", old, "--background")
    assert refused.returncode == ExitCode.USAGE
    assert "SERVICE_API_KEY" in refused.stderr
    assert served.count("flashrun") == 1

    served.flash.variables["SERVICE_API_KEY"] = "the new value"
    new = served.flash("rerun", old, "--background").stdout.strip()
    data = served.get("secret", f"{new}-env")["data"]
    assert base64.b64decode(data["SERVICE_API_KEY"]) == b"the new value"
    assert served.get("flashrun", new)["spec"]["secretRefs"] == [{"name": f"{new}-env"}]


def test_a_rerun_keeps_pointing_to_secrets_that_were_not_made_for_the_old_run(
    served: Served,
) -> None:
    served.push()
    served.flash.write("config.toml", WITH_SECRET)
    words = ("--name", "from-git", "--secret", "team-keys")
    rendered = served.flash("render", "config.toml", *words).stdout
    served.kubectl("apply", "-f", "-", stdin=rendered)

    new = served.flash("rerun", "from-git", "--background").stdout.strip()

    assert served.get("flashrun", new)["spec"]["secretRefs"] == [{"name": "team-keys"}]


def test_a_run_that_was_deleted_is_trained_again_from_storage(served: Served, run: str) -> None:
    old = served.get("flashrun", run)
    uid, spec = old["metadata"]["uid"], FlashRun.from_manifest(old).spec
    record = resolve_run(
        spec,
        identity=RunIdentity(namespace=served.namespace, name=run, uid=uid),
        model=next(model for model in Catalog() if model.id == spec.model),
        environment_digest="0" * 64,
    )
    served.store.put_json(names.spec_key(names.run_prefix(served.namespace, run, uid)), record)
    served.kubectl("delete", "flashrun", run)

    new = served.flash("rerun", run, "--set", "train.epochs=9", "--background").stdout.strip()

    done = served.flash("diff", run, new)
    assert "train.epochs\t3\t9" in done.stdout.splitlines()
    assert not [line for line in done.stdout.splitlines() if line.startswith("train.lora")]


# --- diff ---------------------------------------------------------------------------------------


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


def test_equal_runs_are_said_to_be_the_same(served: Served, run: str) -> None:
    done = served.flash("diff", run, run)

    assert (done.returncode, done.stdout) == (ExitCode.OK, "")
    assert f"{run} and {run} have the same settings" in done.stderr
    assert json.loads(served.flash("diff", run, run, "-o", "json").stdout)["differences"] == []


def test_a_diff_of_a_run_that_waits_says_what_is_not_known_yet(served: Served, run: str) -> None:
    assert f"the platform has chosen nothing for {run} yet" in served.flash("diff", run, run).stderr


# --- pools --------------------------------------------------------------------------------------


def count(served: Served, **counted: Any) -> None:
    """Write how many GPUs there are, as the operator would."""
    told = served.get("configmap", "flashrun-public")["data"]["platform.json"]
    platform = json.loads(told)
    platform["pools"][0] |= counted
    data = {"data": {"platform.json": json.dumps(platform)}}
    served.kubectl("patch", "configmap", "flashrun-public", "-p", json.dumps(data))


def test_gpus_shows_the_pools_and_what_is_free(served: Served) -> None:
    count(served, total=8, free=3)

    done = served.flash("gpus")

    assert (done.stdout, done.stderr) == ("h100\t80\t1\t8\t3\t1\n", "")
    assert served.flash("gpus", "-o", "name").stdout == "h100\n"
    [pool] = json.loads(served.flash("gpus", "-o", "json").stdout)
    assert (pool["name"], pool["total"], pool["free"]) == ("h100", 8, 3)


def test_gpus_that_nobody_counts_are_said_to_be_unknown(served: Served) -> None:
    done = served.flash("gpus")

    assert done.stdout == "h100\t80\t1\t?\t?\t1\n"
    assert "the GPUs of h100 are not counted" in done.stderr


def test_without_the_platforms_word_pools_are_a_failure_with_the_way_out(served: Served) -> None:
    done = served.flash("gpus", "-n", "default")

    assert done.returncode == ExitCode.RUN_FAILED
    assert "flashrun-public" in done.stderr
    assert "choose one with -n" in done.stderr


def test_models_tell_programs_where_a_run_would_go(served: Served) -> None:
    models = {
        model["id"]: model["places"]
        for model in json.loads(served.flash("models", "-o", "json").stdout)
    }

    assert models["Qwen/Qwen3.5-9B"]["grpo"] == {"pool": "h100", "gpus": 1, "nodes": 1}
    assert models["Qwen/Qwen3.6-35B-A3B"] == dict.fromkeys(map(str, Algorithm))


# --- every command ------------------------------------------------------------------------------

FORMS = [
    *("status RUN", "runs", "checkpoints RUN", "models", "gpus", "diff RUN RUN", "cancel RUN"),
    *("train config.toml --background", "train config.toml --dry-run", "render config.toml"),
    *("rerun RUN --background", "rerun RUN --dry-run", "env list"),
]


def test_every_command_answers_in_every_form(served: Served, run: str) -> None:
    for words in FORMS:
        typed = words.replace("RUN", run).split()
        # A dry run makes no run, so it has no name to print: test_offline has the sentence.
        forms = ("json", "yaml") if "--dry-run" in typed else ("json", "yaml", "name")
        told = {form: served.flash(*typed, "-o", form) for form in forms}
        assert {done.returncode for done in told.values()} == {0}, told
        assert type(json.loads(told["json"].stdout)) is type(yaml.safe_load(told["yaml"].stdout))
        assert all("\x1b" not in done.stdout for done in told.values())


ENDINGS = [
    ("status RUN", ExitCode.OK),
    ("status RUN -f", ExitCode.OK),
    ("runs", ExitCode.OK),
    ("checkpoints RUN", ExitCode.OK),
    ("diff RUN RUN", ExitCode.OK),
    ("cancel RUN", ExitCode.OK),
    ("models", ExitCode.OK),
    ("gpus", ExitCode.OK),
    ("env list", ExitCode.OK),
    ("rerun RUN --background", ExitCode.OK),
    ("save RUN", ExitCode.USAGE),  # it has ended
    ("rerun RUN --set nonsense", ExitCode.USAGE),
    ("status RUN/step-1", ExitCode.USAGE),
    ("log RUN", ExitCode.NOT_FOUND),
    ("log RUN --attempt 3", ExitCode.NOT_FOUND),
    ("pull RUN", ExitCode.NOT_FOUND),
    ("pull RUN/step-1", ExitCode.NOT_FOUND),
    ("diff RUN flash-1-gone", ExitCode.NOT_FOUND),
    ("rerun flash-1-gone", ExitCode.NOT_FOUND),
    ("env pull org/nothing new", ExitCode.NOT_FOUND),
    ("runs --context nowhere", ExitCode.USAGE),
    ("train config.toml -n nowhere", ExitCode.NOT_FOUND),
    ("gpus -n default", ExitCode.RUN_FAILED),
]


def test_every_command_ends_with_the_code_that_scripts_rely_on(served: Served, run: str) -> None:
    for words, code in ENDINGS:
        done = served.flash(*words.replace("RUN", run).split())
        assert done.returncode == code, (words, done)
        assert ("error: " in done.stderr) == (code is not ExitCode.OK), (words, done)


def test_a_shell_completes_the_names_of_runs(served: Served, run: str) -> None:
    shell = Shell(
        served.flash.folder,
        served.flash.kubeconfig,
        {"_FLASH_COMPLETE": "complete_bash", "COMP_WORDS": "flash status fl", "COMP_CWORD": "2"},
    )

    assert shell().stdout.split() == [run]
