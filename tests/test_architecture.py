"""The shape of the project: layers, what an import costs, what must not be in the tree."""

import ast
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "operator" / "src"


def test_imports_point_one_way() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{ROOT / 'trainer-image' / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def _loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after ``statement``."""
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in json.loads(run.stdout.splitlines()[-1])}


BASE_MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in (SOURCE / "flashrun").rglob("*.py")
    if "controller" not in path.parts and path.name != "__main__.py"
)


def test_the_base_install_imports_neither_kopf_nor_torch() -> None:
    loaded = _loaded_after("; ".join(f"import {name}" for name in BASE_MODULES))
    assert not loaded & {"kopf", "prometheus_client", "torch", "transformers", "trl", "peft"}


@pytest.mark.parametrize(
    "module",
    ["flashrun.api.resource", "flashrun.plan.decide", "flashrun_trainer.env_check_process"],
)
def test_contract_decisions_and_checks_load_no_client(module) -> None:
    assert not _loaded_after(f"import {module}") & {"kubernetes", "minio", "kopf"}


NEEDS_PYTORCH = re.compile(
    r"^(?:from|import) (?:bench\.marks|datasets|peft|torch|transformers|trl)\b", re.M
)
BENCHMARKS = sorted(
    path.stem
    for path in (ROOT / "bench").glob("*.py")
    if not NEEDS_PYTORCH.search(path.read_text())
)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_can_be_imported(name) -> None:
    """They are not type-checked, and run only by hand: a renamed import would go unnoticed."""
    importlib.import_module(f"bench.{name}")


def test_operator_is_a_folder_and_never_a_package() -> None:
    """An ``operator/__init__.py`` would shadow the standard library for ``python -m``."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert importlib.util.find_spec("operator").origin.endswith("operator.py")  # type: ignore[union-attr]


def _tracked() -> list[Path]:
    """Return the text files of the project, as git sees them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    paths = [ROOT / name for name in listed if (ROOT / name).is_file()]
    return [path for path in paths if path.suffix not in (".png", ".gz")]


PACKAGES = (SOURCE / "flashrun", ROOT / "trainer-image/src/flashrun_trainer", ROOT / "localcluster")
MODULES = sorted(path for folder in PACKAGES for path in folder.rglob("*.py"))
NAMED_TWICE = {
    "pull": "flash pull and flash env pull: a command's module is named as the command is typed",
    "push": "flash env push and flash model push",
    "list": "flash env list and flash model list",
    "delete": "flash env delete and flash model delete",
    "status": "flash status and flash sweep status",
}
"""Module names with two meanings, each with its reason."""


def test_a_module_name_means_one_thing() -> None:
    names = Counter(path.stem for path in MODULES if path.stem not in ("__init__", "__main__"))
    assert {name for name, count in names.items() if count > 1} == NAMED_TWICE.keys()


def test_a_class_name_means_one_thing() -> None:
    names = Counter(
        node.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


WITHOUT_TESTS = {
    "flashrun/api/trainer_choices.py": "two enumerations",
    "flashrun/cli/output/output_format.py": "one enumeration",
    "flashrun/plan/types.py": "dataclasses without methods",
    "flashrun_trainer/context.py": "one dataclass",
}
"""Modules without a test module of their name, each with its reason."""


def test_every_module_has_a_test_module_of_its_name() -> None:
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    missing = {
        f"{folder.name}/{path.relative_to(folder)}"
        for folder in PACKAGES
        for path in folder.rglob("*.py")
        if path.name != "__init__.py" and f"test_{path.stem.strip('_')}.py" not in tests
    }
    assert missing == WITHOUT_TESTS.keys()


UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|NotImplemented" r"Error)\b")


def test_nothing_is_left_unfinished() -> None:
    places = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _tracked()
        if path.suffix in (".py", ".go", ".sh", ".yaml", ".toml", "")
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert places == []


def test_no_lock_file_names_an_address() -> None:
    locks = [path for path in _tracked() if re.fullmatch(r"requirements.*\.txt", path.name)]

    assert len(locks) == 5
    for lock in locks:
        text = lock.read_text()
        assert "--hash=sha256:" in text
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text), lock


def test_both_locks_of_the_trainer_agree() -> None:
    plain, with_vllm = (
        dict(
            re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / "trainer-image" / name).read_text(), re.M)
        )
        for name in ("requirements.txt", "requirements-vllm.txt")
    )

    both = plain.keys() & with_vllm.keys()
    assert len(both) > 50
    assert {name for name in both if plain[name] != with_vllm[name]} == {"numpy"}


@pytest.mark.parametrize("layer", ["api", "plan"])
def test_the_contract_and_the_decisions_read_no_clock(layer: str) -> None:
    """Whoever reads a clock hands the time in, so that a decision can be repeated exactly."""
    readers = {"now", "utcnow", "today", "monotonic"}
    calls = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "operator/src/flashrun" / layer).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in readers
    ]
    assert calls == []


ONE_FOLDER = {"sharding", "network", "handoff", "verifiers", "e2e"}
"""Markers whose tests make looks for in one folder: collecting all tests takes half a minute."""


def test_every_test_of_a_marker_is_in_the_folder_where_make_looks_for_it() -> None:
    asked = re.findall(r'-m (?:"([\w ]+)"|(\w+)) (tests/\w+)', (ROOT / "Makefile").read_text())
    folders = {
        marker: folder
        for several, one, folder in asked
        for marker in (several or one).split(" or ")
        if marker in ONE_FOLDER
    }
    elsewhere = [
        (path, marker)
        for path in (ROOT / "tests").rglob("test_*.py")
        for marker in set(re.findall(r"pytest\.mark\.(\w+)", path.read_text())) & ONE_FOLDER
        if not path.is_relative_to(ROOT / folders[marker])
    ]

    assert folders.keys() == ONE_FOLDER
    assert elsewhere == []
