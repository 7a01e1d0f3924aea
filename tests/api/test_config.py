"""The config reference, row by row: what each key accepts and what it refuses, in which words."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from flashrun.api.config import EnvironmentConfig, TrainConfig
from flashrun.cli.config.compose import ComposedConfig, ConfigFile, compose
from flashrun.cli.config.problems import ConfigError
from flashrun.cli.config.toml_text import toml_value

BASE = 'model = "Qwen/Qwen3.5-4B"\n'
ENVIRONMENT = '[environment]\nid = "your-org/your-env"\n'


def composed(top: str = "", environment: str = "", rest: str = "") -> ComposedConfig:
    text = f"{BASE}{top}\n{ENVIRONMENT}{environment}\n{rest}\n"
    return compose([ConfigFile("run.toml", text.encode())])


def refusals(top: str = "", environment: str = "", rest: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        composed(top, environment, rest)
    assert all(problem.origin.line is not None for problem in caught.value.problems)
    return [problem.sentence for problem in caught.value.problems]


def refusal(top: str = "", environment: str = "", rest: str = "") -> str:
    [sentence] = refusals(top, environment, rest)
    return sentence


def test_only_model_and_environment_are_required() -> None:
    config = composed().config

    assert (config.model, config.algorithm, config.thinking) == ("Qwen/Qwen3.5-4B", "sft", False)
    assert config.train == TrainConfig()


def test_what_is_required_is_named_with_an_example() -> None:
    with pytest.raises(ConfigError) as caught:
        compose([ConfigFile("run.toml", b"")])

    assert str(caught.value).splitlines() == [
        'run.toml: model is required, such as model = "Qwen/Qwen3.5-4B"; see flash models',
        'run.toml: environment.id is required: write [environment] and id = "your-org/your-env"',
    ]


# --- the top level ------------------------------------------------------------------------------

TOP_ACCEPTED = [
    ('algorithm = "sft"', "algorithm", "sft"),
    ('algorithm = "GRPO"', "algorithm", "grpo"),
    ('algorithm = ""', "algorithm", "sft"),
    ("algorithm = false", "algorithm", "sft"),
    ("algorithm = 0", "algorithm", "sft"),
    ("thinking = true", "thinking", True),
    ("thinking = false", "thinking", False),
]


@pytest.mark.parametrize(("line", "key", "value"), TOP_ACCEPTED)
def test_the_top_level_accepts(line: str, key: str, value: Any) -> None:
    assert getattr(composed(line).config, key) == value


TOP_REFUSED = [
    ('algorithm = "dpo"', "algorithm must be one of sft, grpo, not 'dpo'"),
    ("algorithm = 1", "algorithm must be one of sft, grpo, not 1"),
    ('thinking = "yes"', "thinking must be true or false, not 'yes'"),
    ("thinking = 1", "thinking must be true or false, not 1"),
    ("thinkng = true", "thinkng is not a key of the top level; did you mean thinking?"),
    ("steps = 3", "steps is not a key of the top level; did you mean train.steps?"),
    ('secrets = ["A"]', "secrets is not a key of the top level; did you mean environment.secrets?"),
    ("wandb = 3", "wandb must be a table, not 3: write [wandb]"),
]


@pytest.mark.parametrize(("line", "sentence"), TOP_REFUSED)
def test_the_top_level_refuses(line: str, sentence: str) -> None:
    assert refusal(line) == sentence


@pytest.mark.parametrize("model", ['""', '"  "', "3", "true", '"a\\nb"', "[]"])
def test_a_model_is_a_line_of_text(model: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([ConfigFile("run.toml", f"model = {model}\n{ENVIRONMENT}".encode())])

    assert caught.value.problems[0].sentence.startswith("model must ")


SECTIONS_REFUSED = [
    ("[trian]\nsteps = 3", "[trian] is not a section; did you mean [train]?"),
    ("[grpo]",
     '[grpo] is not a section; write algorithm = "grpo" at the top and its keys in [train]'),
    ("[sft]", '[sft] is not a section; write algorithm = "sft" at the top and its keys in [train]'),
    (
        "[deployment]",
        "[deployment] is not a section; allowed are [environment], [train], [eval], "
        "[worker_env], [wandb], [budget]",
    ),
    ("[[train]]\nsteps = 3", "train must be a table, not [{'steps': 3}]: write [train]"),
]  # fmt: skip


@pytest.mark.parametrize(("rest", "sentence"), SECTIONS_REFUSED)
def test_an_unknown_section_is_refused(rest: str, sentence: str) -> None:
    assert refusal(rest=rest) == sentence


# --- [environment] ------------------------------------------------------------------------------


@pytest.mark.parametrize("identifier", ["a/b", " a/b ", "Org.1/my_env-2"])
def test_an_environment_is_an_org_and_a_name(identifier: str) -> None:
    text = f'{BASE}[environment]\nid = "{identifier}"'
    config = compose([ConfigFile("run.toml", text.encode())]).config

    assert config.environment.id == identifier.strip()


@pytest.mark.parametrize(
    "identifier", ["", "a", "a/b/c", "a/..", "./b", "a b/c", "a:b/c", "github:a/b", "https://x/y"]
)
def test_anything_else_is_no_environment(identifier: str) -> None:
    text = f'{BASE}[environment]\nid = "{identifier}"'
    with pytest.raises(ConfigError) as caught:
        compose([ConfigFile("run.toml", text.encode())])

    assert str(caught.value).startswith("run.toml:3: environment.id must ")


ENVIRONMENT_ACCEPTED = [
    ('params = {split = "test", n = 3, deep = {a = [1, 2.5, true]}}', "params",
     {"split": "test", "n": 3, "deep": {"a": [1, 2.5, True]}}),
    ('pip = ["openai>=1.0.0", "uvloop; python_version < \'4\'"]', "pip",
     ("openai>=1.0.0", "uvloop; python_version < '4'")),
    ('secrets = ["A", "B_2", "A"]', "secrets", ("A", "B_2")),
    ("secrets = []", "secrets", ()),
]  # fmt: skip


@pytest.mark.parametrize(("line", "key", "value"), ENVIRONMENT_ACCEPTED)
def test_the_environment_accepts(line: str, key: str, value: Any) -> None:
    assert getattr(composed(environment=line).config.environment, key) == value


def test_places_in_params_take_no_memory_until_one_is_named() -> None:
    """A place as text is as long as all keys above it: there were 4,000 of 60,000 characters."""
    params: dict[str, Any] = {"k" * 60_000: [["ab"], ["cd"]] * 1_000}
    EnvironmentConfig.validate_toml({"id": "a/b", "params": params})  # models are built
    tracemalloc.start()
    try:
        EnvironmentConfig.validate_toml({"id": "a/b", "params": params})
        assert tracemalloc.get_traced_memory()[1] < 2 * 1024 * 1024
    finally:
        tracemalloc.stop()
    params["k" * 60_000][7] = float("nan")
    with pytest.raises(ValidationError) as error:
        EnvironmentConfig.validate_toml({"id": "a/b", "params": params})
    [problem] = error.value.errors()
    assert problem["msg"] == "Value error, [7] must be finite"


ENVIRONMENT_REFUSED = [
    ("params = 3", "environment.params must be a table"),
    ("params = {day = 2026-11-22}", "environment.params.day is a date, which JSON cannot carry"),
    (f"params = {{x = [{'[], ' * 4100}]}}", "environment.params has more than 4,096 values"),
    ("params = {x = nan}", "environment.params.x must be finite"),
    ("params = {x = 99999999999999999999}", "environment.params.x is too large for JSON"),
    ('params = {split = "../x"}', "environment.params.split is '../x'; it names dataset/<split>"),
    ("params = {split = 3}", "environment.params.split is 3; it names dataset/<split>.jsonl"),
    (
        'params = {deep = [{key = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"}]}',
        "environment.params.deep[0].key looks like a GitHub token: put its name in [environment]",
    ),
    ('pip = "openai"', "environment.pip must be a list of strings, not 'openai'"),
    ("pip = [3]", "environment.pip must be a list of strings, not [3]"),
    ('pip = ["-e ."]', "environment.pip[0]: '-e .' is an option of pip"),
    ('pip = ["a", "a b"]', "environment.pip[1]: 'a b' is not a requirement (PEP 508)"),
    ('pip = [""]', "environment.pip[0]: '' is not a requirement"),
    ('secrets = "A"', "environment.secrets must be a list of strings"),
    ('secrets = ["A B"]', "environment.secrets[0] must be the name of an environment variable"),
    ('secrets = ["A=value"]', "environment.secrets[0] must be the name of an environment variable"),
    ('secrets = ["HF_TOKEN"]', "environment.secrets[0] cannot be HF_TOKEN, which is reserved"),
    ('secrets = ["run_id"]', "environment.secrets[0] cannot be run_id, which is reserved"),
    ('secrets = ["LD_PRELOAD"]', "environment.secrets[0] cannot be LD_PRELOAD, which would change"),
    ('split = "test"',
     "split is not a key of [environment]; did you mean environment.params.split?"),
    ('secret = ["A"]', "secret is not a key of [environment]; did you mean environment.secrets?"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "sentence"), ENVIRONMENT_REFUSED)
def test_the_environment_refuses(line: str, sentence: str) -> None:
    assert refusal(environment=line).startswith(sentence)


FLOODS = {
    "environment.params": ("", f"params = {{{', '.join(f'k{n} = 1' for n in range(65))}}}", ""),
    "environment.pip": ("", f"pip = {['openai'] * 65}", ""),
    "environment.secrets": ("", f"secrets = {['A'] * 65}", ""),
    "train.stop_sequences": ("", "", f"[train]\nstop_sequences = {['x'] * 65}"),
    "worker_env": ("", "", "[worker_env]\n" + "".join(f"K{n} = 'x'\n" for n in range(65))),
}


@pytest.mark.parametrize("key", FLOODS)
def test_a_list_or_table_has_an_end(key: str) -> None:
    assert refusal(*FLOODS[key]) == f"{key} has 65 entries; at most 64 are allowed"


# --- [environment] pip --------------------------------------------------------------------------

SHA256 = "0123456789abcdef" * 4
PIP_ACCEPTED = [
    "openai",
    "openai>=1.0.0",
    "openai>=1,<2",
    "openai ~= 1.2",
    "openai==1.*",
    "httpx[http2,brotli]>=0.27",
    "uvloop; python_version < '4' and sys_platform == 'linux'",
    "torch==2.10.0+cu128",
    "own @ https://files.example/own-1-py3-none-any.whl",
    "own @ https://files.example:8443/a/b/own-1.tar.gz",
    f"own @ https://files.example/own-1.whl#sha256={SHA256}",
    "own @ https://files.example/own-1.whl ; python_version < '4'",
]


@pytest.mark.parametrize("requirement", PIP_ACCEPTED)
def test_pip_takes_requirements(requirement: str) -> None:
    pip = composed(environment=f"pip = [{toml_value(requirement)}]").config.environment.pip

    assert pip == (requirement,)


PIP_REFUSED = [
    ("an option", "--index-url=https://h/simple", "is an option of pip"),
    ("a short option", "-r requirements.txt", "is an option of pip"),
    ("an editable folder", "-e .", "is an option of pip"),
    ("an option behind a name", "openai --pre", "is not a requirement (PEP 508)"),
    ("a hash behind a name", "openai==1 --hash=sha256:00", "is not a requirement (PEP 508)"),
    ("nothing", "", "is not a requirement (PEP 508)"),
    ("blanks", "   ", "is not a requirement (PEP 508)"),
    ("two lines", "openai\n--pre", "must be one line"),
    ("a line end", "openai\n", "must be one line"),
    ("a carriage return", "openai\r", "must be one line"),
    ("a comment", "openai # the client", "is not a requirement (PEP 508)"),
    ("a file", "./wheels/own-1.whl", "is not a requirement (PEP 508)"),
    ("a bare address", "https://h/own-1.whl", "is not a requirement (PEP 508)"),
    ("a repository", "git+https://h/own.git", "is not a requirement (PEP 508)"),
    ("a named repository", "own @ git+https://h/own.git@main", "names an address that does not"),
    ("a named file", "own @ file:///tmp/own-1.whl", "names an address that does not"),
    ("a relative address", "own @ wheels/own-1.whl", "names an address that does not"),
    ("plain http", "own @ http://h/own-1.whl", "names an address that does not"),
    ("no host", "own @ https:///own-1.whl", "names an address that does not"),
    ("a host that is none", "own @ https://[::1/own-1.whl", "is not a requirement (PEP 508)"),
    ("a user", "own @ https://me@h/own-1.whl", "with credentials or a query"),
    ("a password", "own @ https://me:pw@h/own-1.whl", "looks like a URL with a password"),
    ("a query", "own @ https://h/own-1.whl?key=1", "with credentials or a query"),
    ("another fragment", "own @ https://h/own-1.whl#egg=own", "only #sha256=… is allowed"),
    ("a token", "own @ https://h/ghp_abcdefghijklmnopqrstuvwxyz0123456789", "looks like a GitHub"),
]


@pytest.mark.parametrize(
    ("requirement", "sentence"), [row[1:] for row in PIP_REFUSED], ids=[r[0] for r in PIP_REFUSED]
)
def test_pip_refuses(requirement: str, sentence: str) -> None:
    told = refusal(environment=f"pip = [{toml_value(requirement)}]")

    assert told.startswith("environment.pip[0]")
    assert sentence in told


# --- [environment] secrets and [worker_env]: names that belong to someone else ------------------

RESERVED = ["FREESOLO_API_KEY", "FREESOLO_INTERNAL_KEY", "RUNPOD_API_KEY", "HF_TOKEN", "HF_REPO",
            "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "RUN_ID", "FLASH_ARM", "SEED"]  # fmt: skip
HIJACKING = ["PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONSTARTUP",
             "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "RANK",
             "KUBERNETES_SERVICE_HOST", "FLASHRUN_SPEC", "BASH_ENV", "HTTPS_PROXY", "HF_ENDPOINT",
             "CUDA_VISIBLE_DEVICES", "SSL_CERT_FILE", "MASTER_ADDR"]  # fmt: skip


@pytest.mark.parametrize("name", [*RESERVED, *HIJACKING])
@pytest.mark.parametrize("spelling", [str.upper, str.lower, str.title])
def test_a_name_of_the_platform_is_refused_in_any_spelling(
    name: str, spelling: Callable[[str], str]
) -> None:
    why = "which is reserved" if name in RESERVED else "which would change how the trainer itself"
    written = spelling(name)
    listed = refusal(environment=f'secrets = ["{written}"]')
    [named] = refusals(rest=f'[worker_env]\n{written} = "x"')

    assert listed.startswith(f"environment.secrets[0] cannot be {written}, {why}")
    assert named.startswith(f"worker_env.{written} cannot be {written}, {why}")


# --- values that look like secrets, wherever text may stand -------------------------------------

TOKEN = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
PLACES = {
    "worker_env": ("", "", '[worker_env]\nA = "{}"'),
    "wandb.project": ("", "", '[wandb]\nproject = "{}"'),
    "wandb.run_name": ("", "", '[wandb]\nrun_name = "{}"'),
    "stop_sequences": ("", "", '[train]\nstop_sequences = ["ok", "{}"]'),
    "one stop sequence": ("", "", '[train]\nstop_sequences = "{}"'),
    "pip": ("", 'pip = ["{}"]', ""),
    "params": ("", 'params = {{a = "{}"}}', ""),
    "params, deep in lists": ("", 'params = {{a = [[{{b = ["x", "{}"]}}]]}}', ""),
    "a key of params": ("", 'params = {{a = {{"{}" = 1}}}}', ""),
    "secrets": ("", 'secrets = ["{}"]', ""),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_value_that_looks_like_a_secret_is_refused_with_where_it_belongs(
    place: tuple[str, str, str],
) -> None:
    [told] = refusals(*(part.format(TOKEN) for part in place))

    assert "looks like a GitHub token" in told
    assert "[environment].secrets" in told or "write the name of a variable" in told
    assert TOKEN not in told


@pytest.mark.parametrize("key", ["model", "environment.id"])
def test_an_identifier_that_looks_like_a_secret_is_refused(key: str) -> None:
    identifier = TOKEN if key == "model" else f"org/{TOKEN}"
    with pytest.raises(ConfigError) as caught:
        compose([ConfigFile("x", f"{BASE}{ENVIRONMENT}".encode())], [f"{key}={identifier}"])

    assert f"{key} looks like a GitHub token" in str(caught.value)
    assert TOKEN not in str(caught.value)


# --- [train] ------------------------------------------------------------------------------------

AT_LEAST_ONE = ["lora_rank", "lora_alpha", "batch_size", "max_length", "save_every", "epochs",
                "steps", "max_tokens"]  # fmt: skip
AT_LEAST_ZERO = ["max_steps", "max_examples"]
INTEGERS = [*AT_LEAST_ONE, *AT_LEAST_ZERO, "group_size"]
NUMBERS = ["learning_rate", "temperature", "kl_penalty_coef", "advantage_clip",
           "thinking_length_penalty_coef"]  # fmt: skip


def train(key: str, value: str) -> Any:
    return getattr(composed(rest=f"[train]\n{key} = {value}").config.train, key)


def train_refusal(key: str, value: str) -> str:
    return refusal(rest=f"[train]\n{key} = {value}")


@pytest.mark.parametrize("key", INTEGERS)
def test_an_integer_may_be_written_as_a_float(key: str) -> None:
    assert train(key, "300.0") == 300
    assert type(train(key, "300.0")) is int


@pytest.mark.parametrize("key", INTEGERS)
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("true", "must be an integer, not true"),
        ('"3"', "must be an integer, not '3'"),
        ("1.5", "must be an integer, not 1.5"),
        ("nan", "must be finite"),
        ("inf", "must be finite"),
        ("9223372036854775807", "is too large"),
        ("[3]", "must be an integer, not [3]"),
    ],
)
def test_what_is_no_integer_is_refused(key: str, value: str, sentence: str) -> None:
    assert train_refusal(key, value).startswith(f"train.{key} {sentence}")


LARGEST = {
    "lora_rank": 1024,
    "lora_alpha": 65_536,
    "batch_size": 1_000_000,
    "max_length": 10_000_000,
    "save_every": 100_000_000,
    "epochs": 1_000_000,
    "max_steps": 100_000_000,
    "max_examples": 1_000_000_000,
    "steps": 100_000_000,
    "group_size": 4096,
    "max_tokens": 10_000_000,
}


@pytest.mark.parametrize(("key", "most"), LARGEST.items())
def test_an_integer_has_an_end_far_above_any_use(key: str, most: int) -> None:
    assert train(key, str(most)) == most
    assert (
        train_refusal(key, str(most + 1)) == f"train.{key} must be at most {most}, not {most + 1}"
    )


@pytest.mark.parametrize("key", AT_LEAST_ONE)
def test_some_integers_begin_at_one(key: str) -> None:
    assert train(key, "1") == 1
    assert train_refusal(key, "0") == f"train.{key} must be at least 1, not 0"


@pytest.mark.parametrize("key", AT_LEAST_ZERO)
def test_no_cap_is_zero(key: str) -> None:
    assert train(key, "0") == 0
    assert train_refusal(key, "-1") == f"train.{key} must be at least 0, not -1"


def test_a_group_is_at_least_two() -> None:
    assert train("group_size", "2") == 2
    assert train_refusal("group_size", "1") == "train.group_size must be at least 2, not 1"


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_may_be_an_integer(key: str) -> None:
    assert train(key, "1") == 1.0


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("true", "must be a number, not true"),
        ('"1"', "must be a number, not '1'"),
        ("nan", "must be finite, not nan"),
        ("-inf", "must be finite, not -inf"),
    ],
)
def test_what_is_no_number_is_refused(key: str, value: str, sentence: str) -> None:
    assert train_refusal(key, value) == f"train.{key} {sentence}"


BOUNDS = [
    ("learning_rate", "1e400", "train.learning_rate must be finite, not inf"),
    ("learning_rate", "0", "train.learning_rate must be greater than 0.0, not 0"),
    ("temperature", "-0.1", "train.temperature must be at least 0.0, not -0.1"),
    ("kl_penalty_coef", "-1", "train.kl_penalty_coef must be at least 0.0, not -1"),
    ("advantage_clip", "-1", "train.advantage_clip must be at least 0.0, not -1"),
    ("thinking_length_penalty_coef", "1.5",
     "train.thinking_length_penalty_coef must be at most 1.0, not 1.5"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "sentence"), BOUNDS)
def test_a_number_has_its_bound(key: str, value: str, sentence: str) -> None:
    assert train_refusal(key, value).replace(".0,", ",") == sentence.replace(".0,", ",")


@pytest.mark.parametrize(
    ("value", "stops"),
    [
        ('"</s>"', ("</s>",)),
        ('["a", "", "b"]', ("a", "b")),
        ('["\\n"]', ("\n",)),
        ("[]", ()),
        ('""', ()),
    ],
)
def test_stop_sequences_are_strings(value: str, stops: tuple[str, ...]) -> None:
    assert train("stop_sequences", value) == stops


def test_stop_sequences_are_nothing_else() -> None:
    sentence = "train.stop_sequences must be a list of strings, not [1]"
    assert train_refusal("stop_sequences", "[1]") == sentence


@pytest.mark.parametrize(
    ("value", "reference"),
    [
        ('"flash-1795370000-3fa9c1d2"', "flash-1795370000-3fa9c1d2"),
        ('" flash-1-a/step-50 "', "flash-1-a/step-50"),
        ('""', None),
    ],
)
def test_a_run_starts_from_a_short_reference(value: str, reference: str | None) -> None:
    assert train("init_from_adapter", value) == reference


@pytest.mark.parametrize(
    "value", ['"s3://b/runs/x"', '"a/step-x"', '"A"', '"a/b/step-1"', '"a/step-01"', "3"]
)
def test_a_run_starts_from_nothing_else(value: str) -> None:
    assert train_refusal("init_from_adapter", value).startswith("train.init_from_adapter")


UNKNOWN = [
    ("kl_penalty_coeff = 1",
     "kl_penalty_coeff is not a key of [train]; did you mean kl_penalty_coef?"),
    ("groupSize = 8", "groupSize is not a key of [train]; did you mean group_size?"),
    ("lora-rank = 8", "lora-rank is not a key of [train]; did you mean lora_rank?"),
    ("max_completion_tokens = 8",
     "max_completion_tokens is not a key of [train]; did you mean train.max_tokens?"),
    ("thinking = true", "thinking is not a key of [train]; did you mean thinking?"),
    ("quux = 1", "quux is not a key of [train]; allowed are lora_rank, lora_alpha, learning_rate"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "sentence"), UNKNOWN)
def test_an_unknown_key_of_train_is_refused(line: str, sentence: str) -> None:
    assert refusal(rest=f"[train]\n{line}").startswith(sentence)


def test_keys_of_the_other_algorithm_are_accepted() -> None:
    config = composed(rest="[train]\nsteps = 3\nepochs = 2").config

    assert config.keys_of_the_other_algorithm() == ("steps",)


# --- [eval] -------------------------------------------------------------------------------------


EVAL_REFUSED = [
    ("every = 0", "eval.every must be at least 1, not 0"),
    ("every = -5", "eval.every must be at least 1, not -5"),
    ("every = 2.5", "eval.every must be an integer, not 2.5"),
    ("max_examples = 0", "eval.max_examples must be at least 1, not 0"),
    ("samples = 0", "eval.samples must be at least 1, not 0"),
    ("samples = 1025", "eval.samples must be at most 1024, not 1025"),
    ("enabled = 0", "eval.enabled must be true or false, not 0"),
    ('split = ""', "eval.split must not be blank"),
    ('split = "../train"',
     "eval.split names dataset/<split>.jsonl, so it must be letters, digits, '.', '_' and '-', and "
     "begin with a letter or a digit"),
    ("split = 3", "eval.split must be a string, not 3"),
    ('metric = "seconds"',
     "eval.metric cannot be 'seconds', which says nothing about the model: use 'score' or the name "
     "of one of the environment's metrics"),
    ('metric = "a\\nb"', "eval.metric must be one line without control characters, not 'a\\nb'"),
    ("save_every = 5", "save_every is not a key of [eval]; did you mean train.save_every?"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "sentence"), EVAL_REFUSED)
def test_an_evaluation_refuses(line: str, sentence: str) -> None:
    assert refusal(rest=f"[eval]\n{line}") == sentence


# --- [worker_env] and [wandb] -------------------------------------------------------------------


def test_worker_env_holds_harmless_strings() -> None:
    config = composed(rest='[worker_env]\nFEATURE_FLAG = "enabled"\nSORT_KEY = "name"').config

    assert config.worker_env == {"FEATURE_FLAG": "enabled", "SORT_KEY": "name"}


WORKER_ENV_REFUSED = [
    ("A = 3", "worker_env.A must be a string: write it in quotes"),
    ("A = true", "worker_env.A must be a string: write it in quotes"),
    ('OPENAI_API_KEY = "x"', "worker_env.OPENAI_API_KEY is the name of a secret"),
    ('openaiApiKey = "x"', "worker_env.openaiApiKey is the name of a secret"),
    ('A = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"', "worker_env.A looks like a GitHub token"),
    ('"a b" = "x"', "worker_env.a b must be the name of an environment variable"),
    ('PATH = "/x"', "worker_env.PATH cannot be PATH, which would change how the trainer itself"),
    ('A = "\\u0000"', "worker_env.A must not contain NUL"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "sentence"), WORKER_ENV_REFUSED)
def test_worker_env_refuses(line: str, sentence: str) -> None:
    assert refusal(rest=f"[worker_env]\n{line}").startswith(sentence)


def test_wandb_has_two_labels() -> None:
    wandb = composed(rest='[wandb]\nproject = " p "\nrun_name = "n"').config.wandb

    assert (wandb.project, wandb.run_name) == ("p", "n")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('project = ""', "wandb.project must not be blank"),
        ("project = 3", "wandb.project must be a string, not 3"),
        (
            'project = "my-team/reading#1"',
            "wandb.project must not contain # or /, which Weights & Biases refuses in the name of "
            "a project",
        ),
        (
            f'project = "{"x" * 129}"',
            "wandb.project is too long; at most 128 characters are allowed",
        ),
        (
            f'run_name = "{"x" * 129}"',
            "wandb.run_name is too long; at most 128 characters are allowed",
        ),
        ('name = "n"', "name is not a key of [wandb]; did you mean run_name?"),
    ],
)
def test_wandb_refuses(line: str, sentence: str) -> None:
    assert refusal(rest=f"[wandb]\n{line}") == sentence


# --- no error shows a secret --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "rest"),
    [
        (f'secrets = ["{TOKEN}"]', ""),
        (f'secrets = ["A={TOKEN}"]', ""),
        (f'pip = ["{TOKEN}"]', ""),
        (f'pip = "{TOKEN}"', ""),
        (f'params = {{split = "{TOKEN}"}}', ""),
        ("", f'[train]\ninit_from_adapter = "{TOKEN}"'),
        ("", f'[train]\nsteps = "{TOKEN}"'),
        ("", f'[train]\nstop_sequences = ["{TOKEN}"]'),
        ("", f'[worker_env]\nA = "{TOKEN}"'),
        ("", f'[wandb]\nproject = "{TOKEN}"'),
        ("", f'token = "{TOKEN}"'),
    ],
)
def test_no_error_repeats_a_secret(environment: str, rest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composed("", environment, rest)

    assert TOKEN not in str(caught.value)
