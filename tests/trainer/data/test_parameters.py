"""Parameters of an environment that its ``load_environment`` does not take."""

import importlib.util
import sys
from pathlib import Path

import pytest

from flashrun_trainer.data import parameters
from flashrun_trainer.pod.trainer_errors import TrainerError


@pytest.mark.parametrize(
    ("name", "arguments", "hint"),
    [
        ("flor", {"floor", "ceiling"}, "did you mean floor?"),
        ("spilt", set(), "did you mean split?"),
        ("shots", {"floor", "ceiling"}, "remove it; its arguments: ceiling, floor"),
        ("shots", set(), "remove it; its arguments: none"),
    ],
)
def test_a_parameter_that_nobody_reads_is_refused_with_the_nearest_one(
    name: str, arguments: set[str], hint: str
):
    with pytest.raises(TrainerError, match=f"load_environment has no argument {name}") as caught:
        parameters.refuse_unknown({name: 1}, arguments)
    assert caught.value.hint == hint


def test_what_the_function_or_we_read_is_accepted():
    parameters.refuse_unknown({"floor": 1, "split": "exam", "records": []}, {"floor"})
    parameters.refuse_unknown({"anything": 1}, None)


@pytest.mark.parametrize(
    ("code", "taken"),
    [
        ("def load_environment(floor, *, ceiling=1): ...", {"floor", "ceiling"}),
        ("def load_environment(**params): ...", None),
        ("def load_environment(): ...", set()),
        ("load_environment = 3", None),
    ],
)
def test_arguments_are_read_from_the_file_that_was_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, taken: set[str] | None
):
    path = tmp_path / "environment.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("env_of_tests", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "env_of_tests", module)
    spec.loader.exec_module(module)

    assert parameters.arguments_of(path, "load_environment") == taken
    assert parameters.arguments_of(tmp_path / "other.py", "load_environment") is None
