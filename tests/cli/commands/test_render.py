"""``flash render``: the FlashRun that ``flash train`` would submit."""

import re

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


@pytest.mark.parametrize("name", ["", "UPPER", "a" * 53, "1a", "a/step-1", "a_b", "a-"])
def test_render_refuses_a_name_that_kubernetes_would(shell: Shell, name: str) -> None:
    assert shell("render", "config.toml", "--name", name).returncode == 2


def test_render_refuses_a_secret_that_kubernetes_would(shell: Shell) -> None:
    done = shell("render", "config.toml", "--secret", "Team Keys")

    assert done.returncode == 2
    assert done.stderr.startswith("error: 'Team Keys' cannot be the name of a Secret")


def rendered_name(shell: Shell, *arguments: str) -> str:
    done = shell("render", "config.toml", "--name-hash", "-o", "name", *arguments)
    return done.stdout.strip()


def test_a_name_with_a_digest_changes_with_the_config_alone(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE)
    first = rendered_name(shell, "--name", "sums")
    assert re.fullmatch("sums-[0-9a-f]{8}", first)
    shell.write("config.toml", "# a comment\n\n" + REFERENCE)
    assert rendered_name(shell, "--name", "sums", "-n", "team-b") == first
    others = (("--set", "train.lora_rank=7"), ("--secret", "team-keys"))
    names = {rendered_name(shell, "--name", "sums", *words) for words in others}
    assert all(re.fullmatch("sums-[0-9a-f]{8}", name) for name in names)
    assert len(names | {first}) == 3


def test_a_raised_budget_keeps_the_name_so_that_the_same_run_goes_on(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE)
    first = rendered_name(shell, "--name", "sums")
    assert rendered_name(shell, "--name", "sums", "--set", "budget.gpu_hours=9") == first


def test_a_secret_keeps_its_name_when_the_digest_changes(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE.replace("[train]", 'secrets = ["A"]\n[train]'))
    done = shell("render", "config.toml", "--name", "sums", "--name-hash")
    assert yaml.safe_load(done.stdout)["spec"]["secretRefs"] == [{"name": "sums-env"}]
    assert "create secret generic sums-env" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--name is not given"),
        (("--name", "a" * 48), "cannot be the name of a run"),
    ],
)
def test_a_digest_is_added_to_a_name_that_leaves_room_for_it(
    shell: Shell, arguments: tuple[str, ...], words: str
) -> None:
    shell.write("config.toml", REFERENCE)
    done = shell("render", "config.toml", "--name-hash", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
