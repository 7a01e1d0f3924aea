"""The config reference, sentence by sentence and row by row.

What the reference says about configs and the command line is shown here, in the reference's order.
What it says about training is shown where training is tested: ``SHOWN_ELSEWHERE`` names the test of
each such sentence, and fails when that test is gone. Bounds and wordings are in ``test_config``.
"""

import ast
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.catalog import Catalog, Model, Thinking
from flashrun.api.config import GRPO_ONLY, EnvironmentConfig, RunConfig, TrainConfig, WandbConfig
from flashrun.api.records import ResolvedTrain
from flashrun.cli.config.compose import ComposedConfig, ConfigFile, compose
from flashrun.cli.config.problems import ConfigError
from flashrun.plan.resolve import ConfigCheck, check_config, resolve_train
from tests.cli.shell import REFERENCE, Shell

ROOT = Path(__file__).parents[2]
MINIMAL = 'model = "Qwen/Qwen3.5-4B"\n[environment]\nid = "your-org/your-env"\n'


def composed(text: str = MINIMAL, *sets: str) -> ComposedConfig:
    return compose([ConfigFile("config.toml", text.encode())], sets)


def config(*sets: str) -> RunConfig:
    """The minimal config with these values."""
    return composed(MINIMAL, *sets).config


def check(config: RunConfig, catalog: Catalog) -> ConfigCheck:
    """What a platform with this catalog says about the config."""
    return check_config(config, resolve_train(config), catalog)


def recipe(*sets: str) -> ResolvedTrain:
    """What trains when only these values are given."""
    return resolve_train(config(*sets))


def refusal(text: str = MINIMAL, *sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        composed(text, *sets)
    return str(caught.value)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell without a cluster, a kubeconfig or a network to need one for."""
    found = Shell(tmp_path)
    found.write("config.toml", REFERENCE)
    return found


# --- the introduction ---------------------------------------------------------------------------


def test_a_toml_config_passed_to_flash_train_describes_a_run(shell: Shell) -> None:
    done = shell("train", "config.toml", "--dry-run")

    assert (done.returncode, done.stderr) == (0, "")
    again = compose([ConfigFile("again.toml", done.stdout.encode())]).config
    train = again.train
    assert (again.model, again.algorithm, again.environment.id) == (
        "Qwen/Qwen3.5-4B",
        "sft",
        "your-org/your-env",
    )
    assert (train.epochs, train.max_examples, train.lora_rank) == (3, 1000, 32)


def test_the_only_required_fields_are_model_and_environment_id() -> None:
    assert check(config(), Catalog()).problems == ()
    assert "model is required" in refusal('[environment]\nid = "a/b"')
    assert "environment.id is required" in refusal('model = "Qwen/Qwen3.5-4B"')
    assert "environment.id is required" in refusal('model = "Qwen/Qwen3.5-4B"\n[environment]')


def test_algorithm_defaults_to_sft() -> None:
    assert config().algorithm == "sft"


@pytest.mark.parametrize("algorithm", ["sft", "grpo"])
def test_everything_else_has_a_default(algorithm: str) -> None:
    assert config(f"algorithm={algorithm}").train == TrainConfig()
    train = recipe(f"algorithm={algorithm}")
    assert None not in (train.learning_rate, train.batch_size, train.max_length, train.save_every)
    assert (train.epochs if algorithm == "sft" else train.steps) is not None


def test_any_config_is_validated_locally_with_dry_run(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE + "stepz = 1\n")
    wrong = shell("train", "config.toml", "--dry-run")

    assert wrong.returncode == 2
    assert wrong.stderr == (
        "error: config.toml:11: stepz is not a key of [train]; did you mean steps?\n"
    )


@pytest.mark.parametrize("words", [("config.toml", "--dry-run"), ("--dry-run", "config.toml")])
def test_dry_run_may_stand_before_or_after_the_file(shell: Shell, words: tuple[str, ...]) -> None:
    assert shell("train", *words).returncode == 0


# --- the tables: every row with its type and default --------------------------------------------

ROWS: dict[str, tuple[Any, Any]] = {
    # key: (a value as --set takes it, what it is then)
    "model": ("Qwen/Qwen3.5-9B", "Qwen/Qwen3.5-9B"),
    "algorithm": ("grpo", "grpo"),
    "thinking": ("true", True),
    "environment.id": ("their-org/their-env", "their-org/their-env"),
    "environment.params": ('{split = "test", n = 3}', {"split": "test", "n": 3}),
    "environment.pip": ('["openai>=1.0.0"]', ("openai>=1.0.0",)),
    "environment.secrets": ('["SERVICE_API_KEY"]', ("SERVICE_API_KEY",)),
    "train.lora_rank": ("16", 16),
    "train.lora_alpha": ("128", 128),
    "train.learning_rate": ("2e-4", 2e-4),
    "train.batch_size": ("8", 8),
    "train.max_length": ("4096", 4096),
    "train.save_every": ("25", 25),
    "train.init_from_adapter": ("flash-1-a/step-50", "flash-1-a/step-50"),
    "train.epochs": ("3", 3),
    "train.max_steps": ("100", 100),
    "train.max_examples": ("1000", 1000),
    "train.steps": ("300", 300),
    "train.group_size": ("16", 16),
    "train.temperature": ("0.7", 0.7),
    "train.max_tokens": ("512", 512),
    "train.kl_penalty_coef": ("0.01", 0.01),
    "train.advantage_clip": ("5.0", 5.0),
    "train.thinking_length_penalty_coef": ("0.001", 0.001),
    "train.stop_sequences": ('["</answer>"]', ("</answer>",)),
    "worker_env": ('{FEATURE_FLAG = "enabled"}', {"FEATURE_FLAG": "enabled"}),
    "wandb.project": ("sums", "sums"),
    "wandb.run_name": ("rank-32", "rank-32"),
}


def value(found: Any, key: str) -> Any:
    for part in key.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("key", ROWS)
def test_the_row_of(key: str) -> None:
    text, expected = ROWS[key]
    found = value(config(f"{key}={text}"), key)

    assert found == expected
    assert isinstance(found, type(expected))


@pytest.mark.parametrize("key", sorted(TrainConfig.model_fields.keys() - {"init_from_adapter"}))
def test_a_given_value_is_what_trains(key: str) -> None:
    text, expected = ROWS[f"train.{key}"]
    algorithm = "grpo" if key in GRPO_ONLY else "sft"

    assert getattr(recipe(f"algorithm={algorithm}", f"train.{key}={text}"), key) == expected


def test_there_is_no_key_without_a_row() -> None:
    tables = {
        "": RunConfig,
        "environment": EnvironmentConfig,
        "train": TrainConfig,
        "wandb": WandbConfig,
    }
    extensions = {"eval", "budget"}
    keys = {
        f"{table}.{key}".removeprefix(".")
        for table, model in tables.items()
        for key in model.model_fields
        if key not in tables.keys() | extensions
    }
    assert keys == ROWS.keys()


RECIPES = [
    # key, SFT's default, GRPO's default; None where the algorithm has no such key
    ("lora_rank", 32, 32),
    ("lora_alpha", 64, 64),
    ("learning_rate", 1e-4, 1e-5),
    ("batch_size", 32, 64),
    ("max_length", 1024, 2368),
    ("save_every", 50, 20),
    ("epochs", 2, None),
    ("max_steps", 0, None),
    ("max_examples", 0, 0),
    ("steps", None, 150),
    ("group_size", None, 8),
    ("temperature", None, 1.0),
    ("max_tokens", None, 320),
    ("kl_penalty_coef", None, 0.0),
    ("advantage_clip", None, None),
    ("thinking_length_penalty_coef", None, 0.0),
    ("stop_sequences", None, ()),
]


@pytest.mark.parametrize(("key", "sft", "grpo"), RECIPES, ids=[row[0] for row in RECIPES])
def test_the_default_of(key: str, sft: Any, grpo: Any) -> None:
    assert getattr(recipe(), key) == sft
    assert getattr(recipe("algorithm=grpo"), key) == grpo


def test_the_defaults_of_the_other_tables() -> None:
    found = config()

    assert (found.environment.params, found.environment.pip, found.environment.secrets) == (
        {},
        (),
        (),
    )
    assert (found.thinking, found.worker_env, found.wandb) == (False, {}, WandbConfig())


# --- the top level ------------------------------------------------------------------------------


def test_thinking_is_for_capable_models_only() -> None:
    flat = Catalog([Model(id="flat/model", parameters=1, thinking=Thinking.NONE)])
    [problem] = check(config("model=flat/model", "thinking=true"), flat).problems

    assert str(problem) == "thinking: flat/model cannot reason: set thinking = false"


def test_reasoning_shares_the_budget_so_thinking_raises_both_defaults() -> None:
    plain, reasoning = recipe("algorithm=grpo"), recipe("algorithm=grpo", "thinking=true")

    assert (plain.max_tokens, reasoning.max_tokens) == (320, 1536)
    assert (plain.max_length, reasoning.max_length) == (2368, 3584)
    assert recipe("thinking=true").max_length == 2048


def test_a_budget_below_the_default_of_thinking_is_warned_about() -> None:
    short = config("algorithm=grpo", "thinking=true", "train.max_tokens=320")
    [warning] = check(short, Catalog()).warnings

    assert str(warning) == "train.max_tokens: 320 is short for reasoning; the default is 1536"


# --- [environment] ------------------------------------------------------------------------------


def test_the_example_of_environment_is_accepted() -> None:
    text = MINIMAL + 'pip = ["openai>=1.0.0"]\nsecrets = ["SERVICE_API_KEY"]\n'
    found = composed(text).config.environment

    assert (found.pip, found.secrets) == (("openai>=1.0.0",), ("SERVICE_API_KEY",))


def test_secret_values_never_stand_in_params() -> None:
    told = refusal(MINIMAL, 'environment.params={key = "sk-abcdefghijklmnopqrstuvwx"}')

    assert "environment.params.key looks like an API key: put its name in [environment]" in told
    assert "sk-" not in told


def test_params_become_part_of_the_run_spec(shell: Shell) -> None:
    done = shell("render", "config.toml", "--set", "environment.params.split=test")

    assert "params:\n      split: test\n" in done.stdout.replace("\r", "")


@pytest.mark.parametrize(
    "name", ["FREESOLO_API_KEY", "HF_TOKEN", "GITHUB_TOKEN", "RUN_ID", "HF_REPO"]
)
def test_a_reserved_secret_name_is_refused(name: str) -> None:
    told = refusal(MINIMAL, f'environment.secrets=["{name}"]')

    assert f"environment.secrets[0] cannot be {name}, which is reserved" in told


# --- [train] ------------------------------------------------------------------------------------


def test_the_rank_is_checked_against_the_base_model() -> None:
    [problem] = check(config("train.lora_rank=65"), Catalog()).problems

    assert str(problem) == "train.lora_rank: 65 is above Qwen/Qwen3.5-4B's cap: use at most 64"


@pytest.mark.parametrize("reference", ["flash-1795370000-3fa9c1d2", "flash-1-a/step-50"])
def test_a_run_starts_from_a_run_or_from_one_of_its_steps(reference: str) -> None:
    found = config(f"train.init_from_adapter={reference}")

    assert found.train.init_from_adapter == reference


@pytest.mark.parametrize(
    "reference",
    ["owner/repo:sft/flash-1-a", "s3://flashrun/runs/a", "runs/a/b/step-5", "a/checkpoints/step-5"],
)
def test_longer_storage_references_are_rejected(reference: str) -> None:
    told = refusal(MINIMAL, f"train.init_from_adapter={reference}")

    assert "is not an adapter reference: use <run> or <run>/step-N" in told


@pytest.mark.parametrize("key", ["max_steps", "max_examples"])
def test_no_cap_is_zero_and_also_the_default(key: str) -> None:
    assert getattr(recipe(f"train.{key}=0"), key) == getattr(recipe(), key) == 0


def test_grpo_takes_150_steps_by_default() -> None:
    assert recipe("algorithm=grpo").steps == 150


def test_keys_of_the_other_algorithm_are_ignored_with_one_warning() -> None:
    found = config("train.steps=5", "train.group_size=4", "train.epochs=1")
    [warning] = check(found, Catalog()).warnings

    assert str(warning) == "train: group_size, steps: not used by sft, and ignored"


# --- managed infrastructure ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "assignment",
    ["gpu.type=H100", "gpu.max_retries=9", "gpu.max_wall_seconds=60", "run_id=mine",
     "model_policy=allow", "train.hf_repo=mine", "environment.resolved_sha=abc"],
)  # fmt: skip
def test_what_the_platform_manages_is_no_knob(assignment: str) -> None:
    found = composed(MINIMAL, assignment)

    assert found.config == config()
    assert len(found.notes) == 1
    assert found.notes[0].endswith("the platform chooses this")


def test_the_note_is_printed_once(shell: Shell) -> None:
    words = ("--set", "gpu.type=H100", "--set", "run_id=mine", "--set", "train.hf_repo=x")
    done = shell("train", "config.toml", "--dry-run", *words)

    assert done.returncode == 0
    assert done.stderr == "note: ignored run_id, gpu, train.hf_repo: the platform chooses this\n"


@pytest.mark.parametrize(("form", "name"), [("table", "again.toml"), ("json", "again.json")])
def test_a_resolved_spec_is_a_config(shell: Shell, form: str, name: str) -> None:
    first = shell("train", "config.toml", "--dry-run", "-o", form).stdout
    shell.write(name, first)
    again = shell("train", name, "--dry-run")

    assert (again.returncode, again.stderr) == (0, "")
    assert "lora_alpha = 64 " in again.stdout


# --- [worker_env] and [wandb] -------------------------------------------------------------------


def test_worker_env_holds_labels_and_flags_and_is_part_of_the_spec(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE + '[worker_env]\nFEATURE_FLAG = "enabled"\n')

    assert "workerEnv:\n    FEATURE_FLAG: enabled\n" in shell("render", "config.toml").stdout


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('SERVICE_API_KEY = "x"', "worker_env.SERVICE_API_KEY is the name of a secret"),
        ('DB_PASSWORD = "x"', "worker_env.DB_PASSWORD is the name of a secret"),
        ('LABEL = "hf_aBcDeFgHiJkLmNoPqRsTuV"', "worker_env.LABEL looks like a Hugging Face token"),
        ('LABEL = "postgres://u:p@db/x"', "worker_env.LABEL looks like a URL with a password"),
    ],
)
def test_secret_looking_keys_and_values_are_rejected(line: str, sentence: str) -> None:
    told = refusal(f"{MINIMAL}[worker_env]\n{line}")

    assert f"{sentence}" in told
    assert "put its name in [environment].secrets" in told


def test_the_labels_of_wandb_are_no_secrets() -> None:
    told = refusal(MINIMAL, "wandb.project=hf_aBcDeFgHiJkLmNoPqRsTuV")

    assert "wandb.project looks like a Hugging Face token" in told


# --- overrides and composition ------------------------------------------------------------------


def test_set_is_repeatable_with_dotted_keys(shell: Shell) -> None:
    words = ("--set", "train.steps=300", "--set", "train.lora_rank=16")
    done = shell("train", "config.toml", *words, "--dry-run", "--set", "algorithm=grpo")

    assert done.returncode == 0
    assert "steps = 300 " in done.stdout
    assert "lora_rank = 16 " in done.stdout


def test_the_example_of_set_changes_an_sft_run_with_a_warning(shell: Shell) -> None:
    words = ("--set", "train.steps=300", "--set", "train.lora_rank=16")
    done = shell("train", "config.toml", *words, "--dry-run")

    assert done.returncode == 0
    assert done.stderr == "note: train: steps: not used by sft, and ignored\n"


def test_overlays_are_merged_deeply(shell: Shell) -> None:
    shell.write("base.toml", REFERENCE)
    shell.write("overlay.toml", "[train]\nlora_rank = 8\n")
    done = shell("train", "base.toml", "--config", "overlay.toml", "--dry-run")

    assert done.returncode == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "lora_rank = 8 # overlay.toml:2" in lines
    assert "epochs = 3 # base.toml:8" in lines


@pytest.mark.parametrize("key", ROWS)
def test_any_value_can_be_set_at_submit_time(key: str) -> None:
    text, expected = ROWS[key]
    base = REFERENCE + "[environment.params]\n[worker_env]\n[wandb]\n"

    assert value(composed(base, f"{key}={text}").config, key) == expected


# --- what training shows ------------------------------------------------------------------------

SHOWN_ELSEWHERE = {
    # [environment]
    "params are keyword arguments of load_environment":
        "cli/commands/env/test_test.py::test_parameters_reach_the_environment",
    "split selects dataset/<split>.jsonl": "trainer/data/test_dataset.py::test_a_split_is_a_file",
    "a missing split file is an error, without a fallback to train":
        "trainer/data/test_dataset.py::test_a_missing_split_is_refused",
    "pip is installed before the environment is imported":
        "trainer/init/test_packages.py::"
        "test_the_pip_list_and_what_it_needs_is_installed_beside_the_image",
    "requirements inside a published environment install nothing":
        "trainer/init/test_packages.py::test_requirements_inside_a_package_install_nothing",
    "secrets are read from the shell, .env and .env.local":
        "cli/config/test_dotenv.py::test_the_first_value_found_wins_and_empty_is_missing",
    "every listed name must have a value when the run is submitted":
        "cli/cluster/test_run_creation.py::test_missing_secrets_are_named_together_and_nothing_is_created",
    "environment code reads a secret from its variables":
        "plan/test_objects.py::test_only_the_trainer_sees_secrets_and_gpus",
    # [train]
    "rank and alpha make the adapter":
        "trainer/test_trl_arguments.py::test_a_fresh_adapter_has_rank_alpha_and_no_dropout",
    "learning rate, batch size, length and cadence reach SFT":
        "trainer/test_trl_arguments.py::test_sft_keys_reach_their_arguments",
    "every save is uploaded, in order; of waiting state the newest wins":
        "trainer/records/test_checkpoint_uploads.py::"
        "test_every_adapter_arrives_in_order_and_of_the_state_the_newest",
    "the last checkpoint is flushed at the end; a slow line skips no save":
        "trainer/records/test_checkpoint_uploads.py::test_a_line_that_was_down_loses_nothing",
    "saving does not wait for uploads":
        "trainer/records/test_checkpoint_uploads.py::test_saving_does_not_wait_for_the_line",
    "a run starts from an adapter": "trainer/test_loop.py::"
        "test_a_warm_start_continues_from_the_adapter",
    "a run starts from a saved checkpoint": "trainer/test_loop.py::"
        "test_a_warm_start_from_a_step_begins_with_the_weights_of_that_step",
    "checkpoints prints short references":
        "cli/commands/test_checkpoints.py::test_checkpoints_are_one_line_each",
    # SFT
    "epochs count, max_steps and max_examples cap":
        "trainer/test_sft.py::test_max_steps_and_max_examples_cap_an_sft_run",
    # GRPO
    "steps, group_size, temperature, max_tokens and kl_penalty_coef reach GRPO":
        "trainer/test_trl_arguments.py::test_grpo_keys_reach_their_arguments",
    "the KL penalty holds the model near its base":
        "trainer/test_grpo.py::test_the_kl_penalty_measures_the_distance_to_the_base_model",
    "advantage_clip is recorded and a no-op":
        "trainer/test_grpo.py::test_advantage_clip_is_recorded_and_changes_nothing",
    "reasoning is penalized by its length":
        "trainer/test_grpo.py::test_reasoning_costs_its_coefficient_a_token",
    "stop sequences end a completion":
        "trainer/test_grpo.py::test_completions_end_at_a_stop_sequence",
    # managed infrastructure, [worker_env], [wandb]
    "what the platform chose shows in the status":
        "plan/test_runs.py::test_a_pod_and_its_storage_become_a_status",
    "variables of worker_env reach the trainer":
        "plan/test_objects.py::test_what_the_platform_sets_comes_after_what_the_user_sets",
    "labels name the run at Weights & Biases":
        "trainer/records/test_wandb_process.py::"
        "test_a_run_is_sent_under_its_project_and_name_with_its_metrics",
    "WANDB_API_KEY is taken along when a run is submitted":
        "cli/commands/test_train.py::test_train_creates_the_run_and_then_the_secret_it_owns",
    "without WANDB_API_KEY nothing is logged there":
        "trainer/records/test_wandb_process.py::test_without_a_key_nothing_is_started",
}  # fmt: skip


@pytest.mark.parametrize("sentence", SHOWN_ELSEWHERE)
def test_it_is_shown_elsewhere(sentence: str) -> None:
    path, _, name = SHOWN_ELSEWHERE[sentence].partition("::")
    tree = ast.parse((ROOT / "tests" / path).read_text())

    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
