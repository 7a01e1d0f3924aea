"""What makes the process of a check like a pod."""

import os
import re
from pathlib import Path

import pytest

from flashrun.api.pod import IMAGE_PYTHON, IMAGE_VARIABLES, NO_TELEMETRY
from flashrun.cli.environments import pod_likeness
from flashrun.cli.output.failure import UsageFailure
from tests.cli.shell import ROOT

DOCKERFILE = (ROOT / "trainer-image" / "Dockerfile").read_text()


def test_the_image_has_this_python_and_these_variables() -> None:
    assert f"ARG BASE_IMAGE=python:{IMAGE_PYTHON}-slim\n" in DOCKERFILE
    last = re.findall(r"^ENV (.+)$", DOCKERFILE, re.MULTILINE)[-1]
    assert dict(item.split("=") for item in last.split()) == IMAGE_VARIABLES


def test_the_process_gets_the_variables_of_the_run_and_of_the_image_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_MY_SHELL", "x")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    given = {"FLAG": "on", "HOME": "/root", "PYTHONHASHSEED": "7"}
    found = pod_likeness.variables(tmp_path, given)

    assert "TOKEN_OF_MY_SHELL" not in found
    assert (found["PATH"], found["HTTPS_PROXY"]) == (os.environ["PATH"], "http://proxy.example")
    assert (found["FLAG"], found["HOME"], found["PYTHONHASHSEED"]) == ("on", str(tmp_path), "0")
    assert NO_TELEMETRY.items() <= found.items()


def test_the_copy_has_what_would_be_published(tmp_path: Path) -> None:
    folder = tmp_path / "sums"
    for name in ("environment.py", ".env", "dataset/train.jsonl", "__pycache__/a.pyc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    scratch = tmp_path / "scratch"
    made = pod_likeness.make_folders(scratch, folder)

    copied = {path.relative_to(made.environment).as_posix()
              for path in made.environment.rglob("*") if path.is_file()}  # fmt: skip
    assert copied == {"environment.py", "dataset/train.jsonl"}
    assert made.environment.name == "sums"
    assert pod_likeness.written_files(made.work) == []
    assert made.work.stat().st_mode & 0o222 == 0


def test_a_link_cannot_be_published(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "environment.py").symlink_to("/etc/hostname")
    with pytest.raises(UsageFailure, match="is a link"):
        pod_likeness.make_folders(tmp_path / "scratch", tmp_path / "env")
