"""The names that modules of an environment must not have."""

import pytest

from flashrun.api.trainer_modules import TRAINER_MODULES, shadowing_files


@pytest.mark.parametrize(
    "file",
    [
        *("datasets.py", "peft.py", "trl.py", "wandb.py", "torch.py", "vllm.py", "flashrun.py"),
        *("statistics.py", "queue.py", "types.py", "typing.py", "random.py"),
        *("datasets/__init__.py", "numpy/__init__.pyc", "json.cpython-312-x86_64-linux-gnu.so"),
    ],
)
def test_a_file_that_python_would_import_in_place_of_the_trainers_own_is_found(file: str) -> None:
    assert shadowing_files(["environment.py", file]) == (file,)


@pytest.mark.parametrize(
    "file",
    [
        *("environment.py", "config.py", "utils.py", "helpers.py", "prompts.py", "rewards.py"),
        *("scoring.py", "main.py", "data.py", "tools.py", "tests/__init__.py", "models.py"),
        *(
            "datasets/train.jsonl",
            "datasets/rows.py",
            "own/datasets.py",
            "own/datasets/__init__.py",
        ),
        *("datasets.jsonl", "datasets", "README.md", "json.md", ""),
    ],
)
def test_a_file_that_python_imports_for_nothing_else_is_not_found(file: str) -> None:
    assert shadowing_files([file]) == ()


def test_further_names_may_be_given() -> None:
    assert shadowing_files(["own.py"], {"own"}) == ("own.py",)
    assert all(name.isidentifier() for name in TRAINER_MODULES)
