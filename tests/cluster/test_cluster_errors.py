"""The errors of cluster: which of them are temporary, and that naming one loads no client."""

import subprocess
import sys

import pytest

from flashrun import cluster_errors
from flashrun.cluster_errors import ClusterError

TEMPORARY = {"Conflict", "Unreachable"}
ERRORS = [
    kind
    for kind in vars(cluster_errors).values()
    if isinstance(kind, type) and issubclass(kind, ClusterError)
]


@pytest.mark.parametrize("kind", ERRORS)
def test_only_conflicts_and_missing_answers_are_temporary(kind: type[ClusterError]) -> None:
    assert kind("a sentence").temporary == (kind.__name__ in TEMPORARY)


@pytest.mark.parametrize("module", ["cluster_errors", "store_errors"])
def test_an_error_can_be_named_without_loading_a_client(module: str) -> None:
    program = f"import sys; import flashrun.{module}; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert f"flashrun.{module}" in loaded
    assert not loaded & {"kubernetes", "aiohttp", "minio", "urllib3", "pydantic"}
