"""``replace``: the one way to change a model, known to the type checker and checked at run time."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from flashrun.api.base import error_sentences
from flashrun.api.config import EnvironmentConfig, RunConfig
from flashrun.api.public import PublicPlatform
from flashrun.api.reasons import Phase
from flashrun.api.resource import FlashRunStatus

ROOT = Path(__file__).parents[2]
SOURCES = [
    *(ROOT / "operator" / "src").rglob("*.py"),
    *(ROOT / "trainer-image" / "src").rglob("*.py"),
    *(ROOT / "localcluster").rglob("*.py"),
]


def test_replace_changes_the_named_fields_only() -> None:
    status = FlashRunStatus(gpu_seconds=7)
    assert status.replace(phase=Phase.FAILED) == FlashRunStatus(gpu_seconds=7, phase=Phase.FAILED)
    assert status == FlashRunStatus(gpu_seconds=7)


def test_replace_remembers_which_fields_were_given() -> None:
    config = RunConfig(model="m", environment=EnvironmentConfig(id="a/b"))
    assert config.replace(thinking=True).model_fields_set == {"model", "environment", "thinking"}


@pytest.mark.parametrize("model", [FlashRunStatus(), PublicPlatform()])
def test_replace_refuses_a_field_that_the_model_does_not_have(model: FlashRunStatus) -> None:
    with pytest.raises(TypeError, match="has no field phaze"):
        model.replace(phaze=Phase.FAILED)


def test_replace_refuses_the_manifest_spelling_of_a_field() -> None:
    with pytest.raises(TypeError, match="has no field gpuSeconds"):
        FlashRunStatus().replace(gpuSeconds=1)


def test_replace_validates_values() -> None:
    with pytest.raises(ValidationError, match="gpu_seconds"):
        FlashRunStatus().replace(gpu_seconds="many")


def test_an_invalid_value_is_explained_by_key_and_never_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        RunConfig.validate_toml({"model": "m", "environment": {"id": "hunter2"}, "algorithms": 1})
    sentences = list(error_sentences(caught.value, prefix="spec."))
    assert [text.partition(": ")[0] for text in sentences] == [
        "spec.environment.id",
        "spec.algorithms",
    ]
    assert "hunter2" not in "".join(sentences)


def test_a_problem_with_the_whole_value_names_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        RunConfig.validate_toml(3)
    [sentence] = error_sentences(caught.value, whole="the file")
    assert sentence.startswith("the file: ")


def test_the_type_checker_knows_the_fields(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from flashrun.api.reasons import Phase\n"
        "from flashrun.api.resource import FlashRunStatus\n"
        "right: FlashRunStatus = FlashRunStatus().replace(phase=Phase.FAILED)\n"
        "FlashRunStatus().replace(phaze=Phase.FAILED)\n"
        "FlashRunStatus().replace(gpu_seconds='many')\n"
    )
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), str(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [line.split(":")[1] for line in errors] == ["4", "5"], done.stdout + done.stderr
    assert 'Unexpected keyword argument "phaze"' in errors[0]
    assert 'incompatible type "str"; expected "int"' in errors[1]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_model_is_changed_without_validation(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    copies = [call for call in calls if getattr(call.func, "attr", "") == "model_copy"]
    assert not [call.lineno for call in copies if call.keywords or call.args]
