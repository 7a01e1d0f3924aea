"""The script that commits the tiny model to the mirror, against a real S3 server.

Making the model needs torch; a stand-in writes two small files instead.
"""

from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.records import Manifest
from flashrun.store import Store
from localcluster import mirror_model

pytestmark = pytest.mark.api


@pytest.fixture
def made(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders into which a model was made; storage is in the environment."""
    access = store.access
    monkeypatch.setenv("STORAGE_ENDPOINT", access.endpoint)
    monkeypatch.setenv("STORAGE_BUCKET", access.bucket)
    monkeypatch.setenv("STORAGE_ACCESS_KEY", access.access_key)
    monkeypatch.setenv("STORAGE_SECRET_KEY", access.secret_key)
    folders: list[Path] = []

    def make(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
        folders.append(folder)

    monkeypatch.setattr(mirror_model, "make", make)
    monkeypatch.setattr(mirror_model, "measure_gigaflops", lambda: 101.3)
    return folders


def test_the_model_is_committed_under_every_id(store: Store, made: list[Path]) -> None:
    mirror_model.main("1", "a/b", "c/d")
    for model in ("a/b", "c/d"):
        manifest = store.get_json(names.model_manifest_key(model, "1"), Manifest)
        assert manifest.kind == "model"
        assert {entry.path for entry in manifest.files} == {"config.json", "model.safetensors"}
    assert len(made) == 1


def test_a_model_that_is_in_the_mirror_stays(
    store: Store, made: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mirror_model.main("1", "a/b")
    before = store.get_json(names.model_manifest_key("a/b", "1"), Manifest)
    mirror_model.main("1", "a/b")
    assert store.get_json(names.model_manifest_key("a/b", "1"), Manifest) == before
    assert len(made) == 1
    assert capsys.readouterr().out.endswith("a/b is in the mirror\n101 GFLOP/s per core\n")
