"""What the command line does without a cluster, a network or credentials."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from flashrun.api.public import PublicPlatform
from flashrun.cli.config import dotenv, toml_text
from flashrun.cli.config.compose import ConfigFile, compose
from flashrun.cli.output import formatting
from tests.cli.conftest import REFERENCE, ROOT, Shell

# --- train --dry-run ----------------------------------------------------------------------------


def test_dry_run_prints_every_value_with_where_it_came_from(shell: Shell) -> None:
    done = shell("train", "config.toml", "--dry-run", "--set", "train.lora_rank=16")

    assert done.returncode == 0
    assert done.stderr == ""
    assert (
        done.stdout
        == """\
model = "Qwen/Qwen3.5-4B"  # config.toml:1
algorithm = "sft"          # config.toml:2
thinking = false           # default

[environment]
id = "your-org/your-env"   # config.toml:5

[train]
lora_rank = 16             # --set train.lora_rank
lora_alpha = 64            # recipe
learning_rate = 0.0001     # recipe
batch_size = 32            # recipe
max_length = 1024          # recipe
save_every = 50            # recipe
epochs = 3                 # config.toml:8
max_steps = 0              # recipe
max_examples = 1000        # config.toml:9

# chosen by the platform: name, pool, GPUs, image, version of the environment and the model
"""
    )


def test_dry_run_has_no_name_to_print(shell: Shell) -> None:
    for words in (("train", "config.toml"), ("rerun", "flash-1795370000-3fa9c1d2")):
        done = shell(*words, "--dry-run", "-o", "name")

        assert done.returncode == 2
        assert "a dry run makes no run, so it has no name to print" in done.stderr


def test_dry_run_fills_in_the_other_recipe(shell: Shell) -> None:
    words = ("--set", "algorithm=grpo", "--set", "thinking=true", "-o", "json")
    done = shell("train", "config.toml", "--dry-run", *words)
    answer = json.loads(done.stdout)

    assert "epochs: not used by grpo" in done.stderr
    assert answer["state"] == "dry_run"
    assert answer["sources"]["algorithm"] == "--set algorithm"
    assert answer["spec"]["train"] == {
        "lora_rank": 32,
        "lora_alpha": 64,
        "learning_rate": 1e-5,
        "batch_size": 64,
        "max_length": 3584,
        "save_every": 20,
        "max_examples": 1000,
        "steps": 150,
        "group_size": 8,
        "temperature": 1.0,
        "max_tokens": 1536,
        "kl_penalty_coef": 0.0,
        "thinking_length_penalty_coef": 0.0,
    }


@pytest.mark.parametrize("algorithm", ["sft", "grpo"])
def test_what_dry_run_prints_is_a_config_again(shell: Shell, algorithm: str) -> None:
    shell.write(
        "rich.toml",
        REFERENCE.replace("[train]", 'params = {a = {b = ["x", 1]}, "c d" = "é\\n"}\n[train]')
        + '[worker_env]\nFLAG = "on"\n[wandb]\nproject = "p"\n',
    )
    first = shell("train", "rich.toml", "--dry-run", "--set", f"algorithm={algorithm}").stdout
    shell.write("again.toml", first)
    again = shell("train", "again.toml", "--dry-run", "-o", "json").stdout
    once = shell("train", "rich.toml", "--dry-run", "--set", f"algorithm={algorithm}", "-o", "json")

    assert json.loads(again)["spec"] == json.loads(once.stdout)["spec"]


def test_an_adapter_brings_its_own_rank(shell: Shell) -> None:
    shell.write("warm.toml", REFERENCE.replace("lora_rank = 32", 'init_from_adapter = "flash-1-a"'))

    assert "# lora_rank" in shell("train", "warm.toml", "--dry-run").stdout


def test_all_problems_are_told_and_end_with_2(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE.replace("epochs = 3", "epochs = 0") + "stepz = 1\n")
    done = shell("train", "config.toml", "--dry-run")

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: config.toml:8: train.epochs must be at least 1, not 0",
        "error: config.toml:11: stepz is not a key of [train]; did you mean steps?",
    ]


LIMITS = [
    ("model=Qwen/Qwen3.5-4b", "--set model: 'Qwen/Qwen3.5-4b' is not in the catalog; did you mean"),
    ("train.lora_rank=65", "--set train.lora_rank: 65 is above Qwen/Qwen3.5-4B's cap"),
    ("train.max_length=9000", "--set train.max_length: 9000 is above Qwen/Qwen3.5-4B's context"),
]


@pytest.mark.parametrize(("assignment", "sentence"), LIMITS)
def test_the_catalogs_limits_are_told_at_their_key(
    shell: Shell, assignment: str, sentence: str
) -> None:
    done = shell("train", "config.toml", "--dry-run", "--set", assignment)

    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}")


def test_a_model_of_the_platform_is_known_from_the_last_visit(shell: Shell) -> None:
    words = ("train", "config.toml", "--dry-run", "--set", "model=own/model")
    assert shell(*words).returncode == 2

    own = {"id": "own/model", "parameters": 1}
    told = PublicPlatform.validate_manifest({"models": [own]})
    shell.write(".cache/flashrun/platform.json", told.model_dump_json(by_alias=True))
    assert shell(*words).returncode == 0


def test_an_address_for_pip_needs_a_host_that_the_platform_told(shell: Shell) -> None:
    pip = 'environment.pip=["own @ https://h.example/own-1.whl"]'
    refused = shell("train", "config.toml", "--dry-run", "--set", pip)
    assert refused.returncode == 2
    assert "--set environment.pip: h.example is no host that this platform" in refused.stderr

    told = PublicPlatform.validate_manifest({"pipUrlHosts": ["h.example"]})
    shell.write(".cache/flashrun/platform.json", told.model_dump_json(by_alias=True))
    assert shell("train", "config.toml", "--dry-run", "--set", pip).returncode == 0


def test_a_config_may_come_from_a_pipe(shell: Shell) -> None:
    assert shell("train", "-", "--dry-run", stdin=REFERENCE).returncode == 0
    assert "<stdin>:1" in shell("train", "-", "--dry-run", stdin="quux = 1").stderr


def test_a_secret_without_a_value_submits_nothing_and_needs_no_cluster(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE.replace("[train]", 'secrets = ["A", "B"]\n[train]'))
    done = shell("train", "config.toml")

    assert done.returncode == 2
    assert "environment.secrets names A, B, but no value is set" in done.stderr
    assert shell("train", "config.toml", "--dry-run").returncode == 0


# --- render -------------------------------------------------------------------------------------


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


def test_the_golden_run_renders_as_it_is_kept(shell: Shell) -> None:
    folder = ROOT / "tests" / "runs" / "sums-grpo"
    kept = yaml.safe_load((folder / "flashrun.yaml").read_text())
    [secret] = [ref["name"] for ref in kept["spec"]["secretRefs"]]
    words = ("--name", kept["metadata"]["name"], "-n", kept["metadata"]["namespace"])
    told = PublicPlatform.validate_manifest(
        {"models": [{"id": kept["spec"]["model"], "parameters": 1}]}
    )
    shell.write(".cache/flashrun/platform.json", told.model_dump_json(by_alias=True))
    done = shell("render", str(folder / "config.toml"), *words, "--secret", secret)

    assert yaml.safe_load(done.stdout) == kept


# --- the shell around it ------------------------------------------------------------------------

USAGE = [
    ("bogus",),
    ("status",),
    ("train",),
    ("train", "missing.toml"),
    ("train", "."),
    ("train", "config.toml", "-o", "xml"),
    ("log", "x", "--attempt", "0"),
    ("status", "flash-1-a/step-5"),
    ("pull", "../x"),
    ("env", "push", "nowhere"),
    ("env", "push", "."),
    ("env", "pull", "no-slash"),
    ("train", "-", "--config", "-"),
    ("explain", "run_id"),
]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_a_wrong_command_ends_with_2_and_no_traceback(shell: Shell, words: tuple[str, ...]) -> None:
    done = shell(*words)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_no_kubeconfig_is_a_sentence(shell: Shell) -> None:
    done = shell("runs")

    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no kubeconfig")


@pytest.mark.parametrize("name", ["flash", "flashrun", "kubectl-flash"])
def test_hints_use_the_name_that_was_typed(shell: Shell, name: str) -> None:
    program = shell.write(name, "from flashrun.cli.main import main\nmain()\n")
    done = subprocess.run(
        [sys.executable, str(program), "status", "x/y"],
        env=shell.environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 3
    assert f"hint: {name.replace('-', ' ')} runs lists them" in done.stderr


@pytest.mark.parametrize("name", ["flash", "flashrun", "kubectl-flash"])
def test_help_uses_the_name_that_was_typed(shell: Shell, name: str) -> None:
    program = shell.write(name, "from flashrun.cli.main import main\nmain()\n")
    typed = name.replace("-", " ")
    for words, example in ((["--help"], "env setup"), (["env", "push", "-h"], "env push ./sums")):
        done = subprocess.run(
            [sys.executable, str(program), *words],
            env=shell.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        told = " ".join(done.stdout.split())
        assert f"Usage: {typed}" in told
        assert f": {typed} {example}" in told


def test_the_version_is_told(shell: Shell) -> None:
    assert shell("version").stdout.startswith("flash ")
    assert shell("--version").stdout == shell("version").stdout


def test_the_schema_knows_every_key_in_its_toml_spelling(shell: Shell) -> None:
    document = json.loads(shell("schema").stdout)

    assert document["properties"].keys() == {
        "model", "algorithm", "thinking", "environment", "train", "worker_env", "wandb",
    }  # fmt: skip
    assert "thinking_length_penalty_coef" in json.dumps(document)
    assert document["additionalProperties"] is False


# --- .env files ---------------------------------------------------------------------------------


def test_the_first_value_found_wins_and_empty_is_missing(tmp_path: Path) -> None:
    here, beside = tmp_path / "here", tmp_path / "beside"
    for folder in (here, beside):
        folder.mkdir()
    (here / ".env").write_text("A=\nB=env\n# C=comment\nD = ' spaced '\n")
    (here / ".env.local").write_text('B=local\nC="quoted"\nexport E=exported\n')
    (beside / ".env").write_text("A=beside\nF=x=y\n")

    places = dotenv.read_sources({"G": "shell", "B": ""}, (here, beside))

    assert dotenv.lookup("ABCDEFGH", places) == {
        "A": "beside",
        "B": "env",
        "C": "quoted",
        "D": " spaced ",
        "E": "exported",
        "F": "x=y",
        "G": "shell",
    }


# --- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 * 2**20, "5.0 MiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_sizes_read_well(count: int, text: str) -> None:
    assert formatting.format_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (59, "59s"), (60, "1m0s"), (3599, "59m59s"), (3600, "1h0m"), (90000, "1d1h")],
)
def test_durations_read_well(seconds: int, text: str) -> None:
    assert formatting.format_duration(seconds) == text


def test_an_age_counts_from_now() -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)

    assert formatting.format_age(now - timedelta(hours=2), now) == "2h0m"
    assert formatting.format_age(None, now) == ""


def test_toml_is_written_so_that_it_reads_back() -> None:
    text = 'quotes " and \\ and \x7f and \n and é'
    written = f"model = {toml_text.toml_value(text[:9])}\n[environment]\nid = 'a/b'\n"
    written += f"params = {{x = {toml_text.toml_value({'a b': [text, 1.0, True]})}}}"

    params = compose([ConfigFile("x", written.encode())]).config.environment.params
    assert params == {"x": {"a b": [text, 1.0, True]}}
