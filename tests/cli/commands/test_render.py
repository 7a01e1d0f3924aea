"""``flash render``: the FlashRun that ``flash train`` would submit."""

import pytest
import yaml

from tests.cli.shell import REFERENCE, Shell


def test_render_prints_a_manifest_without_values(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE.replace("[train]", 'secrets = ["A"]\n[train]'))
    shell.write(".env", "A=very-secret\n")
    done = shell("render", "config.toml", "--name", "sums-1", "-n", "team-a")
    found = yaml.safe_load(done.stdout)

    assert found["metadata"] == {"name": "sums-1", "namespace": "team-a"}
    assert found["spec"]["secretRefs"] == [{"name": "sums-1-env"}]
    assert "control" not in found["spec"]
    assert "kubectl -n team-a label secret sums-1-env flashrun.dev/secrets=true" in done.stderr
    assert "very-secret" not in done.stdout + done.stderr


def test_render_can_name_an_existing_secret(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE.replace("[train]", 'secrets = ["A"]\n[train]'))
    done = shell("render", "config.toml", "--secret", "team-keys")

    assert yaml.safe_load(done.stdout)["spec"]["secretRefs"] == [{"name": "team-keys"}]
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["UPPER", "a" * 53, "1a", "a/step-1", "a_b", "a-"])
def test_render_refuses_a_name_that_kubernetes_would(shell: Shell, name: str) -> None:
    assert shell("render", "config.toml", "--name", name).returncode == 2


def test_render_refuses_a_secret_that_kubernetes_would(shell: Shell) -> None:
    done = shell("render", "config.toml", "--secret", "Team Keys")

    assert done.returncode == 2
    assert done.stderr.startswith("error: 'Team Keys' cannot be the name of a Secret")
