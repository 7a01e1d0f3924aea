"""What operator, trainer and command line share about a pod is written once."""

import ast
from pathlib import Path

import pytest

from flashrun.api import names, pod

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("operator/src", "trainer-image/src")
    for path in (ROOT / folder).rglob("*.py")
    if path.relative_to(ROOT / folder).as_posix()
    not in ("flashrun/api/pod.py", "flashrun/api/names.py")
]
SHARED = {
    value
    for module in (pod, names)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str) and ("/" in value or value.startswith("FLASHRUN_"))
} | {pod.INDEX_VARIABLE, pod.DISRUPTED_CONDITION, names.ACCESS_KEY, names.SPEC_KEY}
OPERATOR_KEYS = "flashrun/controller/settings.py"
"""The operator's own pod mounts its S3 keys where a trainer pod has its access file."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_shared_name_is_written_only_in_the_contract(path: Path) -> None:
    texts = {node.value for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip
    allowed = {pod.STORAGE_FOLDER} if path.as_posix().endswith(OPERATOR_KEYS) else set()
    assert not texts & SHARED - allowed


def test_the_files_lie_in_the_folders_that_are_mounted() -> None:
    assert pod.SPEC_FILE == "/etc/flashrun/spec/spec.json"
    assert pod.STORAGE_FILE == "/var/run/flashrun/storage/access.json"
    assert pod.CA_FILE == "/etc/flashrun/ca/ca.crt"


def test_the_statuses_of_init_containers_come_first() -> None:
    status = {
        "containerStatuses": [{"name": "trainer"}],
        "initContainerStatuses": [{"name": "model"}],
    }
    assert [item["name"] for item in pod.container_statuses({"status": status})] == [
        "model",
        "trainer",
    ]


@pytest.mark.parametrize("found", [{}, {"status": None}, {"status": {"containerStatuses": None}}])
def test_a_pod_without_statuses_has_none(found: dict) -> None:
    assert pod.container_statuses(found) == []
