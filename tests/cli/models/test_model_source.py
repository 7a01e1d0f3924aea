"""Where a pushed model comes from, and what a user reads when a library is missing."""

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.catalog import Source
from flashrun.api.public import PublicPlatform
from flashrun.api.records import ResolvedModel
from flashrun.cli.models import model_source
from flashrun.cli.models.model_source import open_source, refuse_unreadable_mirror
from flashrun.cli.output.failure import Failure, NotFoundFailure, UsageFailure


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF\x03\x00\x00\x00")
    return file


@pytest.fixture
def with_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.fixture
def without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


def answer(monkeypatch: pytest.MonkeyPatch, code: int, stderr: str) -> None:
    """The conversion ends with ``code``; it writes a model if that is 0."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", model_source.CONVERSION]
        if code == 0:
            Path(command[4]).mkdir()
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    with open_source(str(tmp_path)) as folder:
        assert folder == tmp_path


def test_nothing_of_this_name_is_not_found() -> None:
    with pytest.raises(NotFoundFailure, match="there is no folder or file no/such/place"):
        open_source("no/such/place").__enter__()


@pytest.mark.usefixtures("with_libraries")
def test_a_converted_model_is_removed_afterwards(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, 0, "")
    with open_source(str(gguf)) as folder:
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.usefixtures("with_libraries")
def test_the_last_line_of_a_conversion_that_fails_is_shown(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, 1, "a warning\nsmall.gguf cannot be converted: no such architecture\n")
    with pytest.raises(UsageFailure, match=r"^small\.gguf cannot be converted: no such architect"):
        open_source(str(gguf)).__enter__()


@pytest.mark.usefixtures("without_libraries")
def test_a_missing_library_is_named_with_how_to_install_it(gguf: Path) -> None:
    with pytest.raises(UsageFailure, match="needs torch, transformers, gguf") as caught:
        open_source(str(gguf)).__enter__()
    assert "pip install 'flashrun[models]'" in caught.value.hint
    assert "in the trainer image" in caught.value.hint


@pytest.mark.usefixtures("without_libraries")
def test_the_hub_needs_its_library() -> None:
    with pytest.raises(UsageFailure, match="there is no folder org/model, and downloading it"):
        open_source("org/model@main").__enter__()


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"\x80\x04pickle")
    with pytest.raises(UsageFailure, match="is not a GGUF file"):
        open_source(str(file)).__enter__()


@pytest.mark.parametrize("platform", [None, PublicPlatform()])
def test_weights_of_a_mirror_that_people_may_not_read_are_refused(
    platform: PublicPlatform | None,
) -> None:
    mirrored = ResolvedModel(id="acme/small", source=Source.MIRROR, revision="1")
    with pytest.raises(Failure, match="acme/small is in the platform's model mirror"):
        refuse_unreadable_mirror(platform, mirrored)
    refuse_unreadable_mirror(platform, mirrored.replace(source=Source.HUB))
    refuse_unreadable_mirror(PublicPlatform(mirror_readable=True), mirrored)
