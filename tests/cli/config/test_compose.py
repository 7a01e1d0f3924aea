"""Compose files, overlays and ``--set`` into one config that knows where each value was given."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from flashrun.cli.config.compose import SIZE_LIMIT, ComposedConfig, ConfigFile, compose
from flashrun.cli.config.problems import ConfigError

BASE = """\
model = "Qwen/Qwen3.5-4B"

[environment]
id = "your-org/your-env"
params = {split = "train", depth = {a = 1, b = 2}}

[train]
steps = 100
stop_sequences = ["x", "y"]
"""


def composed(*overlays: str, sets: tuple[str, ...] = (), base: str = BASE) -> ComposedConfig:
    files = [ConfigFile("base.toml", base.encode())]
    files += [ConfigFile(f"over{n}.toml", text.encode()) for n, text in enumerate(overlays, 1)]
    return compose(files, sets)


def problems(*overlays: str, sets: tuple[str, ...] = (), base: str = BASE) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        composed(*overlays, sets=sets, base=base)
    return str(caught.value).splitlines()


def test_tables_merge_and_lists_and_scalars_replace() -> None:
    overlay = '[environment.params]\ndepth = {b = 3}\n[train]\nsteps = 7\nstop_sequences = ["z"]'
    config = composed(overlay).config

    assert config.environment.params == {"split": "train", "depth": {"a": 1, "b": 3}}
    assert (config.train.steps, config.train.stop_sequences) == (7, ("z",))
    assert config.environment.id == "your-org/your-env"


def test_the_last_overlay_wins_and_set_beats_every_overlay() -> None:
    overlays = ("[train]\nsteps = 1", "[train]\nsteps = 2")

    assert composed(*overlays).config.train.steps == 2
    sets = ("train.steps=3", "train.steps=4")
    assert composed(*overlays, sets=sets).config.train.steps == 4


def test_only_the_result_is_validated() -> None:
    wrong = BASE.replace("100", '"many"')

    assert composed("[train]\nsteps = 5", base=wrong).config.train.steps == 5


def test_a_scalar_may_replace_a_table_and_is_then_refused_where_it_stands() -> None:
    assert problems("train = 3") == ["over1.toml:1: train must be a table, not 3: write [train]"]


def test_each_problem_names_the_file_it_comes_from() -> None:
    found = problems("[train]\n\nepochs = 0", sets=("train.lora_rank=0",), base=BASE + "quux = 1")

    assert found == [
        "--set train.lora_rank must be at least 1, not 0",
        "over1.toml:3: train.epochs must be at least 1, not 0",
        "base.toml:10: quux is not a key of [train]; allowed are lora_rank, lora_alpha, "
        "learning_rate, batch_size, max_length, save_every, init_from_adapter, epochs, max_steps, "
        "max_examples, steps, group_size, temperature, max_tokens, kl_penalty_coef, "
        "advantage_clip, thinking_length_penalty_coef, stop_sequences",
    ]


def test_every_value_knows_where_it_came_from() -> None:
    found = composed("[train]\nsteps = 7", sets=("thinking=true", "environment.params.n=1"))

    keys = ["model", "environment.id", "environment.params", "environment.params.n", "train.steps",
            "train.stop_sequences", "thinking", "train.epochs"]  # fmt: skip
    where = {key: str(found.origin(*key.split("."))) for key in keys}
    assert where == {
        "model": "base.toml:1",
        "environment.id": "base.toml:4",
        "environment.params": "base.toml:5",
        "environment.params.n": "--set environment.params.n",
        "train.steps": "over1.toml:2",
        "train.stop_sequences": "base.toml:9",
        "thinking": "--set thinking",
        "train.epochs": "None",
    }


PARAM_VALUES = [
    ("300", 300),
    ("1_000", 1000),
    ("0x10", 16),
    ("007", 7),
    ("+5", 5),
    ("-3", -3),
    ("1e-5", 1e-5),
    (".5", 0.5),
    ("5.", 5.0),
    ("true", True),
    ("True", True),
    ("FALSE", False),
    ("bare words", "bare words"),
    ('"quoted"', "quoted"),
    ("'literal'", "literal"),
    ('"with = and , and ]"', "with = and , and ]"),
    ("", ""),
    ("a=b", "a=b"),
    ("1 # no comment", "1 # no comment"),
    ("1,2", "1,2"),
    ("2026-11-22", "2026-11-22"),
    ("12:30:00", "12:30:00"),
    ("null", "null"),
    ("[]", []),
    ("[a,b]", ["a", "b"]),
    ("[ a , b ]", ["a", "b"]),
    ("[1, 2]", [1, 2]),
    ("[1,true,x]", [1, True, "x"]),
    ('["a,b", "c"]', ["a,b", "c"]),
    ("['a,b', c]", ["a,b", "c"]),
    ("[openai>=1.0]", ["openai>=1.0"]),
    ("[[1, 2], [3]]", [[1, 2], [3]]),
    ("{a = 1, b = {c = 'x'}}", {"a": 1, "b": {"c": "x"}}),
    ("1}\nz = {y = 1", "1}\nz = {y = 1"),
    ("[unclosed", "[unclosed"),
]


@pytest.mark.parametrize(("text", "value"), PARAM_VALUES)
def test_set_reads_toml_and_falls_back_to_bare_values(text: str, value: Any) -> None:
    params = composed(sets=(f"environment.params.x={text}",)).config.environment.params

    assert params["x"] == value
    assert type(params["x"]) is type(value)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("wandb.project=123", "123"),
        ("wandb.project=true", "true"),
        ("wandb.project=[a]", "[a]"),
        ('wandb.project="my project"', "my project"),
        (" wandb.project = spaced ", "spaced"),
        ("wandb . project=spaced", "spaced"),
        ("wandb.project=a=b", "a=b"),
        ("wandb.project=1e3", "1e3"),
    ],
)
def test_labels_stay_text(assignment: str, value: str) -> None:
    assert composed(sets=(assignment,)).config.wandb.project == value


def test_variables_of_the_worker_stay_text() -> None:
    config = composed(sets=("worker_env.LEVEL=3", "worker_env.ON=true")).config

    assert config.worker_env == {"LEVEL": "3", "ON": "true"}


def test_a_quoted_part_of_a_key_keeps_its_dots() -> None:
    params = composed(sets=('environment.params."a.b"=1',)).config.environment.params

    assert params["a.b"] == 1


def test_set_makes_the_tables_it_needs() -> None:
    params = composed(sets=("environment.params.new.deep=1",)).config.environment.params

    assert params["new"] == {"deep": 1}


SETS_REFUSED = [
    ("train.steps", "--set train.steps: write it as key=value, such as --set train.lora_rank=16"),
    ("=3", "--set : the key is empty; write it as table.key=value"),
    ("train.=3", "--set train.: the key is empty; write it as table.key=value"),
    (".steps=3", "--set .steps: the key is empty; write it as table.key=value"),
    ('#"=3', '--set #": the key is empty; write it as table.key=value'),
    ('"=3', '--set ": the key is empty; write it as table.key=value'),
    ("model.size=3", "--set model.size: model is not a table, so nothing can be set inside it"),
    (
        "train.steps.x=3",
        "--set train.steps.x: train.steps is not a table, so nothing can be set inside it",
    ),
    (
        "wandb.project.x=3",
        "--set wandb.project.x: wandb.project is not a table, so nothing can be set inside it",
    ),
    ("worker_env.A.b=3", "--set worker_env.A.b: worker_env.A must be a string: write it in quotes"),
    (
        f"environment.params.x={'[' * 50}{']' * 50}",
        "--set environment.params.x: tables and lists may nest at most 40 levels deep",
    ),
    (
        f"environment.params.x={'[' * 5000}{']' * 5000}",
        "--set environment.params.x: tables and lists may nest at most 40 levels deep",
    ),
    ("trian.steps=3", "--set trian.steps: [trian] is not a section; did you mean [train]?"),
    ("stps=3", "--set stps is not a key of the top level; did you mean train.steps?"),
    ("train.steps=nan", "--set train.steps must be finite, not nan"),
    ("train.steps=", "--set train.steps must be an integer, not ''"),
    ("train..steps=3", "--set train..steps: the key is empty; write it as table.key=value"),
    ("train=3", "--set train must be a table, not 3: write [train]"),
    (
        "environment.secret=A",
        "--set environment.secret: secret is not a key of [environment]; "
        "did you mean environment.secrets?",
    ),
    ("wandb.projct=x", "--set wandb.projct: projct is not a key of [wandb]; did you mean project?"),
    ("environment.params.x=nan", "--set environment.params.x must be finite, not nan"),
    ("wandb.project=\udcff", "--set: an assignment is not UTF-8 text; retype it"),
    (
        f"{'a.' * 50}b=1",
        f"--set {'a.' * 50}b: the key or the value is too long; put it into a config file instead",
    ),
]


@pytest.mark.parametrize(("assignment", "sentence"), SETS_REFUSED)
def test_set_refuses(assignment: str, sentence: str) -> None:
    assert problems(sets=(assignment,)) == [sentence]


def test_all_wrong_assignments_are_reported_at_once() -> None:
    assert len(problems(sets=("a", "=b", "model.x=1"))) == 3


def test_everything_that_params_cannot_hold_is_reported_at_once_with_its_line() -> None:
    overlay = """\
[environment.params]
day = 2026-11-22
big = 99999999999999999999
deep = {a = [{time = 12:30:00}]}
"""

    assert problems(overlay) == [
        "over1.toml:2: environment.params.day is a date, which JSON cannot carry; "
        "write it as a string",
        "over1.toml:3: environment.params.big is too large for JSON",
        "over1.toml:4: environment.params.deep.a[0].time is a time, which JSON cannot carry; "
        "write it as a string",
    ]


def test_a_secret_in_an_assignment_is_not_repeated() -> None:
    token = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"

    assert token not in "".join(problems(sets=(token, f"train.steps={token}")))


def test_a_resolved_spec_can_be_fed_back_with_one_note() -> None:
    text = BASE.replace("[train]", 'resolved_sha = "abc"\n[train]\nhf_repo = "x"')
    text = 'run_id = "x"\nmodel_policy = "y"\n' + text + '[gpu]\ntype = "H100"\nanything = 1\n'
    found = composed(base=text)

    assert found.config == composed().config
    assert found.notes == (
        "ignored run_id, gpu, model_policy, train.hf_repo, environment.resolved_sha: "
        "the platform chooses this",
    )


def test_a_platform_key_may_also_come_from_an_assignment() -> None:
    assert composed(sets=("gpu.type=H100", "run_id=x")).notes == (
        "ignored run_id, gpu: the platform chooses this",
    )


SPEC = {
    "model": "Qwen/Qwen3.5-4B",
    "algorithm": None,
    "thinking": None,
    "environment": {"id": "a/b", "params": {"kept": None}, "pip": None, "resolved_sha": ""},
    "train": {"steps": None, "epochs": 3, "lora_rank": 16.0, "hf_repo": ""},
    "gpu": {"type": "H100"},
    "run_id": "local",
    "wandb": {"project": None, "run_name": "n"},
}


@pytest.mark.parametrize(
    "document",
    [SPEC, {"run_id": "r", "state": "dry_run", "spec": SPEC}, {"state": "dry_run", "spec": SPEC}],
    ids=["a spec", "what another dry run prints", "what ours prints"],
)
def test_json_is_a_config_whose_null_is_unset(document: dict[str, Any]) -> None:
    found = compose([ConfigFile("spec.json", json.dumps(document).encode())])
    train = found.config.train

    assert (train.steps, train.epochs, train.lora_rank) == (None, 3, 16)
    assert found.config.environment.params == {"kept": None}
    assert found.config.wandb.run_name == "n"
    assert found.notes[0].startswith("ignored run_id, gpu, train.hf_repo, environment.resolved_sha")
    assert str(found.origin("train", "epochs")) == "spec.json"


def test_json_and_toml_compose() -> None:
    overlay = ConfigFile("over.toml", b"[train]\nepochs = 5")
    base = ConfigFile("spec.json", json.dumps(SPEC).encode())

    assert compose([base, overlay]).config.train.epochs == 5


FULL = SIZE_LIMIT - 100
HOSTILE = {
    "empty": (b"", "model is required"),
    "blank": (b"\n\n  \n", "model is required"),
    "binary": (bytes(range(256)), "this is not UTF-8 text, and TOML must be"),
    "UTF-16": (BASE.encode("utf-16"), "this is not UTF-8 text, and TOML must be"),
    "NUL": (b"a\0b", "this is not TOML"),
    "a PNG": (b"\x89PNG\r\n\x1a\n" + bytes(64), "this is not UTF-8 text"),
    "YAML": (b"model: x\n", "this is not TOML"),
    "a duplicate key": (b'model = "a"\nmodel = "b"\n', "this key or table was given before"),
    "a duplicate table": (b"[train]\n[train]\n", "this key or table was given before"),
    "a duplicate dotted key": (b"train.a = 1\ntrain.a = 2", "this key or table was given before"),
    "an unclosed string": (b'model = "x', "this is not TOML"),
    "a lone carriage return": (b"a = 1\rb = 2", "this is not TOML"),
    "too large": (b"#" * 10_000_000, f"the file is larger than the limit of {SIZE_LIMIT:,} bytes"),
    "a list bomb": (b"a = " + b"[" * FULL, "may nest at most 40 levels"),
    "a table bomb": (b"a = " + b"{a = " * 10_000, "may nest at most 40 levels"),
    "a list bomb that closes": (
        b"a = " + b"[" * 300 + b"]" * 300,
        "may nest at most 40 levels",
    ),
    "a dotted bomb": (b"a" + b".a" * (FULL // 2) + b" = 1", "may nest at most 40 levels"),
    "a quoted dotted bomb": (b'"a b".' * (FULL // 6) + b"a = 1", "may nest at most 40 levels"),
    "a header bomb": (b"[a" + b".a" * (FULL // 2) + b"]", "may nest at most 40 levels"),
    "quotes": (b'"' * FULL, "this is not TOML"),
    "escaped quotes": (b'"' + b'\\"' * (FULL // 2), "this is not TOML"),
    "digits": (b"a = " + b"1" * 5000, "a number has too many digits"),
    "many keys": (
        b"".join(b"k%d=1\n" % n for n in range(FULL // 9)),
        "29,078 more problems are not listed",
    ),
    "many tables": (
        b"".join(b"[k%d]\n" % n for n in range(FULL // 9)),
        "more problems are not listed",
    ),
    "many lines": (b"a = '''" + b"\n" * FULL + b"'''", "model is required"),
    "a surrogate": (b'model = "\\ud800"', "this is not TOML"),
    "a date": (b"model = 2026-11-22", "model must be a string"),
    "JSON that is a list": (b'["model", 1]', "this is not TOML"),
    "broken JSON": (b'{"model": "x",\n}', "this is not JSON"),
    "a JSON bomb": (b'{"a":' * (FULL // 5), "may nest at most 40 levels"),
    "a JSON bomb that closes": (
        b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
        "may nest at most 40 levels",
    ),
    "a duplicate JSON key": (b'{"model": "a", "model": "b"}', "a key is given twice"),
    "JSON digits": (b'{"a": ' + b"1" * 5000 + b"}", "a number has too many digits"),
    "NaN in JSON": (b'{"train": {"steps": NaN}}', "train.steps must be finite"),
    "a surrogate in JSON": (b'{"model": "\\ud800"}', "half of a surrogate pair"),
}


@pytest.mark.parametrize(("data", "sentence"), HOSTILE.values(), ids=HOSTILE)
def test_whatever_the_bytes_there_is_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([ConfigFile("run.toml", data)])

    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 20_000


def test_a_syntax_error_of_json_has_its_line() -> None:
    assert problems(base='{"model": "x",\n"a" 1}') == [
        "base.toml:2: this is not JSON: Expecting ':' delimiter at column 5"
    ]


@given(some.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(ConfigError):
        compose([ConfigFile("run.toml", data)])


@given(some.binary(max_size=60))
def test_no_json_raises_anything_else(data: bytes) -> None:
    with pytest.raises(ConfigError):
        compose([ConfigFile("run.json", b"{" + data)])


@given(some.text(max_size=80))
def test_no_assignment_raises_anything_else(text: str) -> None:
    with contextlib.suppress(ConfigError):
        composed(sets=(text,))


@pytest.mark.parametrize(
    "data",
    [
        BASE.encode(),
        b"\xef\xbb\xbf" + BASE.encode(),
        BASE.replace("\n", "\r\n").encode(),
        BASE.rstrip("\n").encode(),
    ],
    ids=["plain", "BOM", "CRLF", "no end of line"],
)
def test_line_ends_and_marks_do_not_matter(data: bytes) -> None:
    found = compose([ConfigFile("run.toml", data)])

    assert found.config == composed().config
    assert str(found.origin("train", "steps")) == "run.toml:8"


def test_a_syntax_error_has_its_line_and_every_file_is_read() -> None:
    assert problems("a = = 1", base="\n\nb = ]") == [
        "base.toml:3: this is not TOML: Invalid value at column 5",
        "over1.toml:1: this is not TOML: Invalid value at column 5",
    ]
