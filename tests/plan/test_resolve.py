"""Defaults, catalog rules and pools."""

import pytest

from flashrun.api.catalog import Catalog, Model, Thinking
from flashrun.api.config import RunConfig
from flashrun.api.records import ResolvedEval
from flashrun.plan.resolve import ConfigCheck, check_config, resolve_eval, resolve_train
from tests.plan import worlds

CATALOG = Catalog(
    [
        Model(id="flat/model", parameters=1, thinking=Thinking.NONE),
        Model(id="deep/model", parameters=1, thinking=Thinking.ALWAYS),
    ]
)


def config(model: str = "Qwen/Qwen3.5-4B", **table) -> RunConfig:
    return RunConfig.validate_toml({"model": model, "environment": {"id": "a/b"}, **table})


def check(config: RunConfig, catalog: Catalog, **hosts) -> ConfigCheck:
    return check_config(config, resolve_train(config), catalog, **hosts)


DEFAULTS = [
    ("sft", False, {"lora_rank": 32, "lora_alpha": 64, "learning_rate": 1e-4, "batch_size": 32,
                    "max_length": 1024, "save_every": 50, "epochs": 2, "max_steps": 0,
                    "max_examples": 0, "steps": None, "max_tokens": None}),
    ("sft", True, {"max_length": 2048}),
    ("grpo", False, {"learning_rate": 1e-5, "batch_size": 64, "max_length": 2368,
                     "save_every": 20, "steps": 150, "group_size": 8, "temperature": 1.0,
                     "max_tokens": 320, "kl_penalty_coef": 0.0, "epochs": None,
                     "thinking_length_penalty_coef": 0.0, "stop_sequences": ()}),
    ("grpo", True, {"max_tokens": 1536, "max_length": 3584}),
]  # fmt: skip


@pytest.mark.parametrize(("algorithm", "thinking", "values"), DEFAULTS)
def test_what_is_left_out_comes_from_the_recipe(algorithm, thinking, values) -> None:
    train = resolve_train(config(algorithm=algorithm, thinking=thinking))

    assert {key: getattr(train, key) for key in values} == values


def test_the_recipe_never_gives_a_length_that_a_config_may_not_have() -> None:
    train = resolve_train(config(algorithm="grpo", train={"max_tokens": 9_999_999}))
    assert train.max_length == 10_000_000


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [({"temperature": 0}, "temperature", 0.0), ({"max_examples": 0}, "max_examples", 0),
     ({"kl_penalty_coef": 0.5}, "kl_penalty_coef", 0.5), ({"steps": 1}, "steps", 1)],
)  # fmt: skip
def test_a_given_value_is_kept_even_when_it_is_zero(given, key, value) -> None:
    train = resolve_train(config(algorithm="grpo", train=given))
    assert getattr(train, key) == value


PROBLEMS = [
    ("a typo in the model", {"model": "Qwen/Qwen3.5-4b"}, "did you mean 'Qwen/Qwen3.5-4B'?"),
    ("thinking on a model that cannot", {"model": "flat/model", "thinking": True},
     "set thinking = false"),
    ("a model that always thinks", {"model": "deep/model"}, "set thinking = true"),
    ("a rank above the cap", {"train": {"lora_rank": 65}}, "use at most 64"),
    ("a length above the context", {"train": {"max_length": 8193}}, "use at most 8192"),
    ("a default length above the context",
     {"model": "Qwen/Qwen3.6-35B-A3B", "algorithm": "grpo", "train": {"max_tokens": 3000}},
     "train.max_length: 5048 (the recipe's default) is above Qwen/Qwen3.6-35B-A3B's context: "
     "use at most 4096"),
    ("a completion as long as the sequence",
     {"algorithm": "grpo", "train": {"max_length": 512, "max_tokens": 512}},
     "train.max_tokens: max_tokens = 512 leaves no room for a prompt in max_length = 512: "
     "use at most 511, or raise max_length above 512"),
    ("a sequence without room for two tokens",
     {"algorithm": "grpo", "train": {"max_length": 1, "max_tokens": 1}},
     "in max_length = 1: raise max_length above 1"),
    ("completions that are all the same",
     {"algorithm": "grpo", "train": {"temperature": 0}}, "set it above 0"),
    ("a length below the default completion",
     {"algorithm": "grpo", "train": {"max_length": 300}},
     "train.max_length: max_tokens = 320 (the recipe's default) leaves no room"),
    ("an address on no host of the platform",
     {"environment": {"id": "a/b", "pip": ["openai", "own @ https://h.example/own-1.whl"]}},
     "environment.pip: h.example is not an allowed package host on this platform: list packages"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "sentence"), [row[1:] for row in PROBLEMS], ids=[row[0] for row in PROBLEMS]
)
def test_a_limit_of_the_model_refuses_with_the_number_that_works(table, sentence) -> None:
    [problem] = check(config(**table), CATALOG).problems
    assert sentence in str(problem)


PROBLEMS_CURED = [
    ("rank", {"train": {"lora_rank": 64}}),
    ("length", {"train": {"max_length": 8192}}),
    ("completion", {"algorithm": "grpo", "train": {"max_length": 512, "max_tokens": 511}}),
    ("default completion", {"algorithm": "grpo", "train": {"max_length": 321}}),
    ("reasoning", {"model": "flat/model", "thinking": False}),
    ("no reasoning", {"model": "deep/model", "thinking": True}),
]


@pytest.mark.parametrize(
    "table", [row[1] for row in PROBLEMS_CURED], ids=[r[0] for r in PROBLEMS_CURED]
)
def test_the_number_that_is_named_works(table) -> None:
    assert check(config(**table), CATALOG).problems == ()


@pytest.mark.parametrize(
    ("url", "hosts", "sentence"),
    [
        ("https://h.example/own-1.whl", ("h.example",), None),
        ("https://H.example/own-1.whl", ("h.example",), None),
        ("https://h.example:8443/own-1.whl", ("h.example:8443",), None),
        ("https://h.example:8443/own-1.whl", ("h.example",), "use an address on h.example"),
        ("https://x.h.example/own-1.whl", ("h.example", "b.example"),
         "x.h.example is not an allowed package host on this platform: use an address on "
         "b.example, h.example"),
    ],
)  # fmt: skip
def test_an_address_needs_a_host_of_the_platform(url, hosts, sentence) -> None:
    table = {"environment": {"id": "a/b", "pip": [f"own @ {url}", "openai>=1"]}}
    problems = check(config(**table), CATALOG, pip_url_hosts=hosts).problems

    assert [sentence in str(problem) for problem in problems] == ([True] if sentence else [])


@pytest.mark.parametrize(("hosts", "phase"), [((), "Failed"), (("h.example",), "Pending")])
def test_the_operator_refuses_the_same_addresses(hosts, phase) -> None:
    trainer = worlds.PLATFORM.trainer.model_copy(update={"pip_url_hosts": hosts})
    platform = worlds.PLATFORM.model_copy(update={"trainer": trainer})
    pip = ["own @ https://h.example/own-1.whl"]
    run = worlds.make_run({"environment": {"id": "a/b", "pip": pip}})
    decision = worlds.World(run, worlds.Observed(), platform).decide()

    assert decision.status.phase == phase


def test_an_unknown_model_hides_no_other_problem() -> None:
    table = {"environment": {"id": "a/b", "pip": ["own @ https://h.example/own-1.whl"]}}

    assert len(check(config(model="gpt-9", **table), CATALOG).problems) == 2


def evaluation_of(**table) -> ResolvedEval | None:
    given = config(**table)
    return resolve_eval(given, resolve_train(given))


EVALUATIONS = [
    ("nothing given", {},
     {"split": "eval", "required": False, "every": None, "max_examples": 64, "may_shrink": True,
      "samples": 1, "temperature": 1.0, "max_tokens": 320, "metric": "score"}),
    ("reasoning", {"thinking": True}, {"max_tokens": 1536}),
    ("a short sequence", {"train": {"max_length": 128}}, {"max_tokens": 127}),
    ("rollouts of another form", {"algorithm": "grpo",
     "train": {"temperature": 0.7, "max_tokens": 100}}, {"temperature": 0.7, "max_tokens": 100}),
    ("everything given", {"eval": {"split": "test", "every": 5, "max_examples": 8, "samples": 4,
     "max_tokens": 9, "metric": "pass@4"}},
     {"split": "test", "required": True, "every": 5, "max_examples": 8, "may_shrink": False,
      "samples": 4, "max_tokens": 9, "metric": "pass@4"}),
    ("the default split by its name", {"eval": {"split": "eval"}}, {"required": True}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "values"), [row[1:] for row in EVALUATIONS], ids=[row[0] for row in EVALUATIONS]
)
def test_what_an_evaluation_leaves_out_has_a_default(table, values) -> None:
    found = evaluation_of(**table)

    assert {key: getattr(found, key) for key in values} == values


@pytest.mark.parametrize(
    "table",
    [
        {"eval": {"enabled": False}},
        {"eval": {"enabled": False, "split": "test"}},
        {"environment": {"id": "a/b", "params": {"split": "eval"}}},
    ],
    ids=["turned off", "turned off with a split", "trained on the default split"],
)
def test_a_run_may_go_without_an_evaluation(table) -> None:
    assert evaluation_of(**table) is None


EVAL_PROBLEMS = [
    ("the split that is trained on", {"eval": {"split": "train"}},
     "eval.split: 'train' is the split that the run trains on: name another one"),
    ("the split that params choose",
     {"environment": {"id": "a/b", "params": {"split": "exam"}}, "eval": {"split": "exam"}},
     "eval.split: 'exam' is the split"),
    ("answers as long as the sequence", {"train": {"max_length": 64}, "eval": {"max_tokens": 64}},
     "eval.max_tokens: 64 leaves no room for a prompt in max_length = 64: use at most 63"),
    ("a loss of GRPO", {"algorithm": "grpo", "eval": {"metric": "loss"}},
     "eval.metric: 'loss' is measured in SFT only"),
    ("pass@k of one answer", {"eval": {"metric": "pass@1"}},
     "eval.metric: pass@1 needs several answers to each example, and eval.samples is 1: raise it "
     "to at least 2"),
    ("pass@k of too few answers", {"eval": {"metric": "pass@8", "samples": 4}},
     "eval.samples is 4: raise it to at least 8"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "sentence"), [row[1:] for row in EVAL_PROBLEMS], ids=[row[0] for row in EVAL_PROBLEMS]
)
def test_an_evaluation_that_cannot_work_is_refused(table, sentence) -> None:
    [problem] = check(config(**table), CATALOG).problems
    assert sentence in str(problem)


def test_what_is_turned_off_is_not_checked() -> None:
    table = {"eval": {"enabled": False, "split": "train", "metric": "pass@8"}}
    assert check(config(**table), CATALOG).problems == ()


WARNINGS = [
    ("keys of the other algorithm", {"train": {"steps": 3, "group_size": 4}},
     "group_size, steps: not used by sft"),
    ("too few tokens for reasoning",
     {"algorithm": "grpo", "thinking": True, "train": {"max_tokens": 500}}, "default is 1536"),
    ("too short for reasoning", {"thinking": True, "train": {"max_length": 1024}},
     "default is 2048"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "sentence"), [row[1:] for row in WARNINGS], ids=[row[0] for row in WARNINGS]
)
def test_what_is_odd_warns(table, sentence) -> None:
    findings = check(config(**table), CATALOG)

    assert findings.problems == ()
    assert any(sentence in str(warning) for warning in findings.warnings)


def test_an_ordinary_config_has_nothing_to_say_about() -> None:
    findings = check(config(algorithm="grpo", train={"steps": 10}), CATALOG)
    assert (findings.problems, findings.warnings) == ((), ())
