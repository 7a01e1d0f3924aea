"""Submitting a run: what is checked before it is created, and in which order it is created."""

import time

import yaml

from flashrun.api import names
from flashrun.cli.cluster.run_creation import NewRun
from flashrun.cli.config.compose import ConfigFile, compose
from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import REFERENCE, WITH_SECRETS, Served, ask_server
from tests.servers import CRD, install_crd


def test_what_is_shown_of_a_new_run_has_no_values_of_secrets() -> None:
    composed = compose([ConfigFile("config.toml", REFERENCE.encode())])

    assert "hidden" not in repr(NewRun(composed, {"A_KEY": "hidden"}))


def test_missing_secrets_are_named_together_and_nothing_is_created(served: Served) -> None:
    served.flash.write("config.toml", WITH_SECRETS)
    served.flash.write(".env.local", "OTHER=\n")

    done = served.flash("train", "config.toml", "--background")

    assert done.returncode == 2
    assert "SERVICE_API_KEY, OTHER" in done.stderr
    assert served.count("flashrun") == 0
    assert served.count("secret") == 1  # only the platform's


def test_the_run_is_deleted_when_its_secret_is_refused(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", WITH_SECRETS)
    served.flash.write(".env", f"SERVICE_API_KEY={'x' * 700_000}\nOTHER={'y' * 700_000}\n")

    done = served.flash("train", "config.toml", "--background")

    assert done.returncode == 1
    assert "the run was deleted, as its Secret was refused" in done.stderr
    assert "xxx" not in done.stderr
    assert served.count("flashrun") == 0


def test_an_environment_that_was_never_pushed_is_refused_with_the_way_out(served: Served) -> None:
    done = served.flash("train", "config.toml", "--background")

    assert done.returncode == 2
    assert "flash env push FOLDER --name your-org/your-env" in done.stderr


def test_an_environment_of_another_org_is_refused_before_anything_is_created(
    served: Served,
) -> None:
    served.push()
    served.publish(environment_orgs=(served.namespace,))
    done = served.flash("train", "config.toml", "--background")
    assert done.returncode == 2
    assert f"use {served.namespace}/your-env, or ask" in done.stderr
    problems = ask_server(served)["problems"]
    assert any("environment.id: Environment your-org/your-env" in text for text in problems)
    assert served.count("flashrun") == 0


def test_nothing_is_submitted_where_nobody_would_start_it(served: Served) -> None:
    served.push()
    served.kubectl("delete", "configmap", names.PUBLIC_CONFIG_MAP)
    done = served.flash("train", "config.toml", "--background")

    assert done.returncode == ExitCode.NOT_FOUND
    assert f"the operator does not serve namespace {served.namespace}" in done.stderr
    assert "choose one with -n that it serves" in done.stderr
    assert served.count("flashrun") == 0


def test_a_key_that_an_older_cluster_does_not_know_is_refused_and_not_dropped(
    served: Served,
) -> None:
    served.push()
    name = served.submit()
    served.flash.write("config.toml", REFERENCE)
    older = yaml.safe_load(CRD.read_text())
    spec = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["train"]["properties"]["saveEvery"]
    del spec["properties"]["budget"]["properties"]["gpuHours"]
    words = ("--set", "train.save_every=2")
    install_crd(served.kubeconfig, older)
    try:
        end = time.monotonic() + 60
        while not (problems := ask_server(served, *words)["problems"]):
            assert time.monotonic() < end
        done = served.flash("train", "config.toml", "--background", *words)
        changed = served.flash("budget", name, "20")
    finally:
        install_crd(served.kubeconfig)

    assert any("the cluster does not know spec.train.saveEvery" in text for text in problems)
    assert done.returncode != 0
    assert "the cluster does not know spec.train.saveEvery; its administrator" in done.stderr
    assert changed.returncode != 0
    assert "the cluster does not know spec.budget.gpuHours; its administrator" in changed.stderr
    assert served.count("flashrun") == 1
