"""The words of a status: each is used, and written nowhere but in its table."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from flashrun.api import exits, reasons, resource
from flashrun.api.exits import Exit, Termination
from flashrun.api.reasons import (
    NO_REASON,
    Activity,
    ConditionType,
    KubernetesReason,
    Owner,
    Phase,
    Reason,
    Retry,
    reason_from,
)
from flashrun.api.resource import AttemptStatus, Condition, FailureStatus

ROOT = Path(__file__).parents[2]
TABLES = (Path(reasons.__file__), Path(exits.__file__))
SOURCES = sorted(
    path
    for folder in ("operator/src", "trainer-image/src")
    for path in (ROOT / folder).rglob("*.py")
)


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """Each source, parsed when a test asks: that takes seconds, and every tier collects this."""
    return {path: ast.parse(path.read_text()) for path in SOURCES}


# --- used ---------------------------------------------------------------------------------------


@functools.cache
def used_members() -> set[str]:
    """``Class.MEMBER`` wherever the source names one, but not where pages are generated."""
    return {
        f"{node.value.id}.{node.attr}"
        for path, tree in trees().items()
        if path.parent.name != "generate"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }


@pytest.mark.parametrize(
    "member",
    [*Reason, *ConditionType, *Phase, *Activity, *KubernetesReason, *Exit, *Owner, *Retry],
    ids=lambda member: f"{type(member).__name__}.{member.name}",
)
def test_every_member_is_used(member: Enum) -> None:
    assert f"{type(member).__name__}.{member.name}" in used_members()


# --- written once -------------------------------------------------------------------------------

KUBERNETES_ALSO_SAYS = {"Succeeded", "Ready"}
"""A phase of pods, and a condition of nodes and pods."""
WORDS = {str(word) for word in (*Reason, *ConditionType, *Activity, *KubernetesReason)}


def reason_arguments(tree: ast.AST) -> Iterator[ast.expr]:
    """What stands where a reason belongs: a keyword, an argument of ``TrainerError``, a key."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="TrainerError"), args=[_, reason, *_]):
                yield reason
            case ast.keyword(arg="reason", value=reason):
                yield reason
            case ast.Dict(keys=keys, values=values):
                yield from (
                    value
                    for key, value in zip(keys, values, strict=True)
                    if isinstance(key, ast.Constant) and key.value == "reason"
                )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_word_is_written_outside_its_table(path: Path) -> None:
    if path in TABLES or path == Path(resource.__file__):
        return
    literals = {node for node in ast.walk(trees()[path]) if isinstance(node, ast.Constant)}
    assert not [n.value for n in literals if n.value in WORDS - KUBERNETES_ALSO_SAYS]
    assert not [n.value for n in reason_arguments(trees()[path]) if n in literals]


# --- exit code and reason agree -----------------------------------------------------------------


def ends() -> list[tuple[Exit, Reason]]:
    """Each exit code that the trainer raises together with a reason."""
    return [
        (Exit[code], Reason[reason])
        for tree in trees().values()
        for node in ast.walk(tree)
        for pair in [node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])]
        for first, second in pairwise(pair)
        if (code := member_of("Exit", first)) and (reason := member_of("Reason", second))
    ]


def member_of(kind: str, node: ast.expr) -> str:
    match node:
        case ast.Attribute(value=ast.Name(id=name), attr=member) if name == kind:
            return member
    return ""


def test_the_trainer_ends_with_codes_and_reasons() -> None:
    assert len(ends()) > 30


def test_an_exit_code_and_its_reason_agree_on_the_retry() -> None:
    assert [end for end in ends() if end[1].retry is not end[0].retry] == []


@pytest.mark.parametrize("code", list(Exit))
def test_every_exit_code_has_a_reason_that_ends_an_attempt(code: Exit) -> None:
    assert code.reason.retry is not None
    assert code.reason is not Reason.TRAINER_FAILED  # the default: no row of the table has it


# --- words of other programs --------------------------------------------------------------------


@pytest.mark.parametrize("text", ["CreateContainerConfigError", "PreemptionByScheduler", ""])
def test_a_reason_of_another_program_is_taken_as_it_is(text: str) -> None:
    assert reason_from(text) == text
    assert not isinstance(reason_from(text), Reason)


def test_a_reason_of_ours_becomes_a_member() -> None:
    assert reason_from("SecretMissing") is Reason.SECRET_MISSING


@pytest.mark.parametrize("text", ["Diverged", "WrittenByANewerVersion"])
def test_a_stored_reason_reads_back_and_is_written_as_the_same_text(text: str) -> None:
    failure = FailureStatus.validate_manifest({"reason": text, "message": "m"})
    left = exits.parse_termination(f'{{"reason": "{text}", "message": "m"}}')

    assert failure.to_manifest() == {"reason": text, "message": "m"}
    assert isinstance(left, Termination)
    assert left.model_dump_json(exclude_defaults=True) == f'{{"reason":"{text}","message":"m"}}'
    assert FailureStatus.validate_manifest(failure.to_manifest()) == failure


def test_an_attempt_at_work_has_no_reason() -> None:
    attempt = AttemptStatus(number=1, pod="pod-1")
    assert attempt.reason is NO_REASON
    assert attempt.model_dump(mode="json")["reason"] == ""


def test_a_reason_that_the_api_server_would_refuse_is_refused() -> None:
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T12:00:00Z"}
    with pytest.raises(ValidationError, match="at most 64"):
        Condition.validate_manifest({**condition, "reason": "R" * 65})


# --- the type checker ---------------------------------------------------------------------------


def test_the_type_checker_refuses_a_misspelt_reason(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from flashrun.api.reasons import Reason\n"
        "from flashrun.api.resource import FailureStatus\n"
        "from flashrun_trainer.pod.trainer_errors import TrainerError\n"
        "FailureStatus(reason=Reason.DIVERGED, message='right')\n"
        "FailureStatus(reason=Reason.DIVERGD, message='wrong')\n"
        "FailureStatus(reason='Diverged', message='wrong')\n"
        "TrainerError(71, 'Diverged', 'wrong', 'hint')\n"
    )
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), str(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    errors = [line.split(":")[1] for line in done.stdout.splitlines() if ": error: " in line]
    assert errors == ["5", "6", "7"], done.stdout + done.stderr
