"""The model mirror on a real S3 server: pushes that end early, other content, damage, deletion."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.catalog import Thinking
from flashrun.api.records import FileEntry, Manifest, ModelFacts
from flashrun.cli.cluster import mirror
from flashrun.cli.output.failure import NotFoundFailure, UsageFailure
from flashrun.store import Store
from flashrun.store_errors import Corrupt
from tests.cli.models.models import write_model

pytestmark = pytest.mark.api
ID, REVISION = "org/small", "1"
FACTS = ModelFacts(parameters=12, context=2048, thinking=Thinking.NONE)
PREFIX = names.model_prefix(ID, REVISION)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def entries(folder: Path) -> tuple[FileEntry, ...]:
    return mirror.hash_files(folder, sorted(path.name for path in folder.iterdir()), lambda _: None)


def push(store: Store, folder: Path, sent: Callable[[int], None] = lambda _: None) -> bool:
    return mirror.upload(store, ID, REVISION, folder, entries(folder), FACTS, sent)


def written(store: Store) -> dict[str, object]:
    """When each object of the model was written."""
    return {entry.key.removeprefix(PREFIX): entry.modified for entry in store.list(PREFIX)}


def test_a_model_is_downloaded_as_it_was_pushed(store: Store, folder: Path, tmp_path: Path) -> None:
    sent: list[int] = []
    assert push(store, folder, sent.append)
    store.download_folder(PREFIX, tmp_path / "again")

    assert entries(tmp_path / "again") == entries(folder)
    assert sum(sent) == sum(file.size for file in entries(folder))


def test_a_push_that_was_interrupted_goes_on_with_the_files_that_are_missing(
    store: Store, folder: Path
) -> None:
    def interrupt(size: int) -> None:
        if len(written(store)) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(store, folder, interrupt)
    before = written(store)
    [left] = mirror.list_models(store)
    assert left.manifest is None
    sent: list[int] = []
    assert push(store, folder, sent.append)
    after = written(store)

    assert len(before) == 2
    assert {name: after[name] for name in before} == before
    assert names.MANIFEST in after
    assert sum(sent) == sum(file.size for file in entries(folder))


def test_a_model_that_is_there_is_not_uploaded_again(store: Store, folder: Path) -> None:
    push(store, folder)
    before = written(store)

    assert not push(store, folder)
    assert written(store) == before


def test_other_content_under_a_revision_is_refused_and_changes_nothing(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    push(store, folder)
    before = written(store)
    other = write_model(tmp_path / "other", tokenizer__json=b'{"other": 1}')
    with pytest.raises(UsageFailure, match="is in the mirror with other files"):
        push(store, other)

    assert written(store) == before


def test_other_content_does_not_replace_files_of_a_push_that_is_not_complete(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    push(store, folder)
    store.delete([PREFIX + names.MANIFEST])
    other = write_model(tmp_path / "other", tokenizer__json=b'{"other": 1}')
    with pytest.raises(UsageFailure, match="is not complete") as caught:
        push(store, other)

    assert "flash model delete org/small --revision 1" in caught.value.hint
    assert push(store, folder)


def test_a_push_that_loses_to_another_one_is_refused(store: Store, folder: Path) -> None:
    files = entries(folder)

    def rival(_: int) -> None:
        if len(written(store)) == len(files) - 1:
            store.put_bytes(PREFIX + names.MANIFEST, b"{}")

    with pytest.raises(UsageFailure, match="is in the mirror with other files"):
        mirror.upload(store, ID, REVISION, folder, files, FACTS, rival)


def test_a_file_that_changes_during_the_push_is_not_kept(store: Store, folder: Path) -> None:
    files = entries(folder)
    (folder / "tokenizer.json").write_bytes(b"[]")
    with pytest.raises(UsageFailure, match=r"tokenizer\.json changed during the upload"):
        mirror.upload(store, ID, REVISION, folder, files, FACTS, lambda _: None)

    assert {"tokenizer.json", names.MANIFEST}.isdisjoint(written(store))


def test_a_damaged_byte_is_refused_at_the_download(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    push(store, folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    store.put_bytes(PREFIX + "model.safetensors", bytes(data))
    with pytest.raises(Corrupt, match="is not what its manifest lists"):
        store.download_folder(PREFIX, tmp_path / "again")


def test_the_list_has_every_revision_with_its_size(store: Store, folder: Path) -> None:
    push(store, folder)
    mirror.upload(store, "org/small", "2", folder, entries(folder), FACTS, lambda _: None)
    store.put_bytes("models/org/half/1/config.json", b"{}")
    found = {(item.model, item.revision): item for item in mirror.list_models(store)}

    assert list(found) == [("org/half", "1"), ("org/small", "1"), ("org/small", "2")]
    assert found["org/half", "1"].manifest is None
    assert found["org/small", "2"].size > sum(file.size for file in entries(folder))


def test_a_deleted_revision_is_gone_and_the_others_stay(store: Store, folder: Path) -> None:
    push(store, folder)
    mirror.upload(store, "org/small", "12", folder, entries(folder), FACTS, lambda _: None)
    mirror.delete(store, ID, REVISION)

    assert [item.revision for item in mirror.list_models(store)] == ["12"]
    with pytest.raises(NotFoundFailure, match="the mirror has no model org/small at revision 1"):
        mirror.delete(store, ID, REVISION)


def test_equal_files_have_one_revision_and_other_files_another(tmp_path: Path) -> None:
    one, same = write_model(tmp_path / "one"), write_model(tmp_path / "same")
    other = write_model(tmp_path / "other", tokenizer__json=b"[]")
    revisions = [mirror.content_revision(entries(folder)) for folder in (one, same, other)]

    assert revisions[0] == revisions[1] != revisions[2]


def test_a_manifest_of_an_earlier_version_is_completed_by_the_same_push(
    store: Store, folder: Path
) -> None:
    assert push(store, folder)
    key = PREFIX + names.MANIFEST
    complete = store.get_json(key, Manifest)
    store.put_json(key, complete.replace(model=None, base_model=""))
    [before] = mirror.list_models(store)
    assert before.verdict is not None
    assert "push it again" in before.verdict.answer.refused

    assert not push(store, folder)
    assert store.get_json(key, Manifest) == complete
    [after] = mirror.list_models(store)
    assert after.verdict is not None
    assert after.verdict.answer.model is not None
