"""A server downloads an adapter once, and only as it was pinned."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flashrun.api.records import FileEntry, Manifest
from flashrun.api.served import ServedAdapter, ServedList
from flashrun.store import Store
from flashrun_trainer.serving.adapter_cache import AdapterCache, AdapterRefused, UnknownAdapter

if TYPE_CHECKING:  # the trainer image, where its own tests run, lacks the servers of the others
    from tests.servers import Minio

PREFIX = "runs/team-a/run/uid/attempt-1/step-5/"
FILES = {"adapter/adapter_config.json": b"{}", "adapter/adapter_model.safetensors": b"weights"}


@pytest.fixture
def store(minio: "Minio") -> Store:
    """Storage with a checkpoint that has the state of its trainer, too."""
    store = minio.store("served-adapters")
    entries = []
    for path, data in {**FILES, "state/optimizer.pt": b"state"}.items():
        store.put_bytes(PREFIX + path, data)
        digest = hashlib.sha256(data).hexdigest()
        entries.append(FileEntry(path=path, size=len(data), sha256=digest))
    manifest = Manifest(kind="checkpoint", created=datetime.now(UTC), files=tuple(entries))
    store.put_json(f"{PREFIX}manifest.json", manifest)
    return store


def cache_of(store: Store, folder: Path) -> AdapterCache:
    digest = hashlib.sha256(store.get_bytes(f"{PREFIX}manifest.json")).hexdigest()
    adapter = ServedAdapter(id="run/step-5", prefix=PREFIX, manifest=digest, rank=8)
    return AdapterCache(ServedList(adapters=(adapter,)), store, folder / "adapters")


def test_the_files_of_the_adapter_are_downloaded_once_and_nothing_else(
    store: Store, tmp_path: Path
) -> None:
    cache = cache_of(store, tmp_path)

    folder = cache.folder_of("run/step-5")
    store.delete([f"{PREFIX}manifest.json"])

    assert cache.folder_of("run/step-5") == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        Path(path).name: data for path, data in FILES.items()
    }
    assert list(folder.parent.iterdir()) == [folder]


def damage_weights(store: Store) -> None:
    store.put_bytes(f"{PREFIX}adapter/adapter_model.safetensors", b"weightt")


def replace_both(store: Store) -> None:
    """Other weights, with a manifest that fits them."""
    data = b"others."
    store.put_bytes(f"{PREFIX}adapter/adapter_model.safetensors", data)
    old = store.get_json(f"{PREFIX}manifest.json", Manifest)
    files = tuple(
        entry.replace(sha256=hashlib.sha256(data).hexdigest())
        if entry.path.endswith("safetensors")
        else entry
        for entry in old.files
    )
    store.put_json(f"{PREFIX}manifest.json", old.replace(files=files))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (damage_weights, "is not what its manifest lists"),
        (replace_both, "which was pinned when flash serve was typed"),
        (lambda store: store.delete([f"{PREFIX}manifest.json"]), "was deleted"),
    ],
)
def test_what_was_changed_since_it_was_pinned_is_refused(
    store: Store, tmp_path: Path, change: Any, words: str
) -> None:
    cache = cache_of(store, tmp_path)
    change(store)

    with pytest.raises(AdapterRefused, match=words) as refused:
        cache.folder_of("run/step-5")

    assert "adapter run/step-5 is refused" in str(refused.value)
    assert not list((tmp_path / "adapters").glob("*"))


def test_an_adapter_that_is_not_in_the_list_is_unknown(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnknownAdapter):
        cache_of(store, tmp_path).folder_of("run")
