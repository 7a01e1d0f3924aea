"""How a problem of a config is printed."""

from flashrun.cli.config.problems import ConfigError, Origin, Problem


def test_a_problem_begins_with_its_place() -> None:
    problem = Problem(Origin("run.toml", 3), "train.steps must be at least 1, not 0")

    assert str(problem) == "run.toml:3: train.steps must be at least 1, not 0"


def test_a_key_of_set_is_named_only_once() -> None:
    origin = Origin("--set train.steps")

    assert str(Problem(origin, "train.steps must be at least 1, not 0")) == (
        "--set train.steps must be at least 1, not 0"
    )
    assert str(Problem(origin, "train.steps: 9 is too much")) == "--set train.steps: 9 is too much"
    assert str(Problem(origin, "write it as key=value")) == (
        "--set train.steps: write it as key=value"
    )


def test_an_error_lists_every_problem() -> None:
    origin = Origin("run.toml", 1)
    error = ConfigError([Problem(origin, "one"), Problem(origin, "two")])

    assert str(error) == "run.toml:1: one\nrun.toml:1: two"
