"""What Flux makes of runs in git, by its own libraries: ``make test-flux``.

``localcluster/go/flux`` does what its kustomize-controller does with a source. The controllers of
Flux themselves do not run, and nothing is fetched from git.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashrun.cli.output import terminal
from localcluster import toolchain
from localcluster.steps import StepRunner
from tests.cli.output.test_terminal import SHORT, STRINGS
from tests.cli.shell import REFERENCE, Shell
from tests.servers import kubectl
from tests.test_gitops_examples import GITOPS, read

pytestmark = [pytest.mark.api, pytest.mark.slow]
Flux = Callable[..., Any]


@pytest.fixture
def flux(installed: Path, tmp_path: Path) -> Flux:
    """Build or apply a folder as Flux does; it prepares the folder, so that it gets a copy."""
    with closing(StepRunner.silent(tmp_path / "steps")) as steps:
        program = toolchain.program("flux", steps)

    def run(verb: str, source: Path, **spec: Any) -> Any:
        copy = tmp_path / "source"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
        [_, own] = read("flux/kustomization.yaml")
        own["spec"] |= spec
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
        done = subprocess.run(
            [program, verb, copy, tmp_path / "own.yaml"],
            env={**os.environ, "KUBECONFIG": str(installed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_string_in_yaml_is_a_string_for_flux(flux: Flux, tmp_path: Path) -> None:
    data = {f"value-{number}": text for number, text in enumerate([*STRINGS, *SHORT])}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "strings"},
        "data": data,
    }
    (tmp_path / "git").mkdir()
    (tmp_path / "git" / "strings.yaml").write_text(terminal.to_yaml(config_map))
    [found] = flux("build", tmp_path / "git", path="./")

    assert found["data"] == data


def test_the_example_is_applied_once_and_shows_no_drift(flux: Flux, installed: Path) -> None:
    kubectl(installed, "create", "namespace", "flux-example")
    [name] = [item["metadata"]["name"] for item in flux("build", GITOPS)]
    subject = f"FlashRun/flux-example/{name}"

    assert flux("apply", GITOPS, targetNamespace="flux-example") == {subject: "created"}
    assert flux("apply", GITOPS, targetNamespace="flux-example") == {subject: "unchanged"}


def test_a_rendered_run_has_the_same_parameters_after_flux(
    flux: Flux, installed: Path, tmp_path: Path
) -> None:
    """Floats that are whole, and strings like numbers, are the same after the API server, too."""
    shell = Shell(tmp_path)
    kubectl(installed, "create", "namespace", "flux-parameters")
    params = '[environment.params]\nrate = 2.0\nid = "1e3"\nflag = "y"\nodd = "0o17"\nwhole = 7\n'
    shell.write("config.toml", REFERENCE.replace("[train]", f"{params}\n[train]"))
    rendered = shell("render", "config.toml", "--name", "parameters")
    assert rendered.returncode == 0, rendered.stderr
    shell.write("git/run.yaml", rendered.stdout)
    where = {"path": "./", "targetNamespace": "flux-parameters"}
    [done] = flux("apply", shell.folder / "git", **where).values()
    assert done == "created"
    words = ("-n", "flux-parameters", "get", "flashrun", "parameters", "-ojson")
    spec = json.loads(kubectl(installed, *words))["spec"]

    expected = {"rate": 2, "id": "1e3", "flag": "y", "odd": "0o17", "whole": 7}
    assert spec["environment"]["params"] == expected
    assert spec["floatParams"] == ["/rate"]
    assert [*flux("apply", shell.folder / "git", **where).values()] == ["unchanged"]
