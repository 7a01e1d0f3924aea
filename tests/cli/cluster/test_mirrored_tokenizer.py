"""The tokenizer of a mirrored model, on a real S3 server with the keys of a namespace's people."""

from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.catalog import Model, Source, Thinking
from flashrun.api.public import PublicPlatform
from flashrun.api.records import FileEntry, ModelFacts
from flashrun.cli.cluster import mirror, mirrored_tokenizer
from flashrun.cli.cluster.mirrored_tokenizer import cached_tokenizer, served_revision
from flashrun.cli.output.failure import Failure, NotFoundFailure
from flashrun.plan.storage_policies import namespace_policy
from flashrun.store import Store
from flashrun.store_errors import Corrupt
from tests.cli.models.models import weights, write_model

pytestmark = pytest.mark.api
ID, REVISION = "org/small", "1"
FACTS = ModelFacts(parameters=12, context=2048, thinking=Thinking.NONE)
PREFIX = names.model_prefix(ID, REVISION)
NEEDED = {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "flashrun" / "tokenizers"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(
        tmp_path / "model",
        chat_template__jinja=b"{{ messages }}",
        model__safetensors=None,
        model__safetensors__index__json=b"{}",
        **{"model-00001-of-00001__safetensors": weights("a", "b")},
    )


@pytest.fixture
def person(store: Store) -> Store:
    """The store with the keys of a namespace's people."""
    return Store(store.assume(namespace_policy(store.access.bucket_arn, "team-a", ["team-a"]), 900))


def push(store: Store, folder: Path, revision: str = REVISION) -> None:
    files = mirror.hash_files(
        folder, sorted(path.name for path in folder.iterdir()), lambda _: None
    )
    mirror.upload(store, ID, revision, folder, files, FACTS, lambda _: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def platform(source: Source = Source.MIRROR) -> PublicPlatform:
    return PublicPlatform(models=(Model(id=ID, parameters=1, source=source, revision=REVISION),))


def test_people_get_the_files_of_the_tokenizer_and_no_weights(
    store: Store, person: Store, folder: Path
) -> None:
    push(store, folder)
    fetched = cached_tokenizer(person, ID, REVISION)

    assert contents(fetched) == {name: (folder / name).read_bytes() for name in NEEDED}


def test_what_is_cached_intact_is_not_downloaded_again(
    store: Store, person: Store, folder: Path, cache: Path
) -> None:
    push(store, folder)
    fetched = cached_tokenizer(person, ID, REVISION)
    for name in NEEDED:
        store.delete([PREFIX + name])

    assert cached_tokenizer(person, ID, REVISION) == fetched
    assert list(cache.iterdir()) == [fetched]


@pytest.mark.parametrize("damage", ["changed", "missing", "more"])
def test_what_was_changed_in_the_cache_is_downloaded_again(
    store: Store, person: Store, folder: Path, damage: str
) -> None:
    push(store, folder)
    fetched = cached_tokenizer(person, ID, REVISION)
    before = contents(fetched)
    match damage:
        case "changed":
            (fetched / "tokenizer.json").write_bytes(b"[]")
        case "missing":
            (fetched / "tokenizer.json").unlink()
        case "more":
            (fetched / "added_tokens.json").write_bytes(b"{}")

    assert cached_tokenizer(person, ID, REVISION) == fetched
    assert contents(fetched) == before


def test_another_content_of_the_same_name_has_a_cache_of_its_own(
    store: Store, person: Store, folder: Path
) -> None:
    push(store, folder)
    first = cached_tokenizer(person, ID, REVISION)
    write_model(folder, tokenizer__json=b'{"other": 1}')
    push(store, folder, "2")

    assert contents(cached_tokenizer(person, ID, "2"))["tokenizer.json"] == b'{"other": 1}'
    assert contents(first)["tokenizer.json"] == b"{}"


def test_a_file_that_differs_from_the_manifest_is_refused_and_not_cached(
    store: Store, person: Store, folder: Path, cache: Path
) -> None:
    push(store, folder)
    store.put_bytes(PREFIX + "tokenizer.json", b"[]")
    with pytest.raises(Corrupt, match="is not what its manifest lists"):
        cached_tokenizer(person, ID, REVISION)

    assert list(cache.iterdir()) == []


def test_files_that_are_too_long_are_not_downloaded(
    store: Store, person: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    push(store, folder)
    monkeypatch.setattr(mirrored_tokenizer, "SIZE_LIMIT", 16)
    with pytest.raises(Failure, match="longer than 0 MiB together"):
        cached_tokenizer(person, ID, REVISION)

    assert not cache.exists()


def test_a_manifest_that_leads_out_of_the_cache_is_refused(
    store: Store, person: Store, folder: Path, tmp_path: Path
) -> None:
    push(store, folder)
    manifest = mirror.read_manifest(store, ID, REVISION)
    assert manifest is not None
    outside = FileEntry(path="../../../../out.json", size=2, sha256="0" * 64)
    store.put_json(PREFIX + names.MANIFEST, manifest.replace(files=(*manifest.files, outside)))
    with pytest.raises(Corrupt, match="outside"):
        cached_tokenizer(person, ID, REVISION)

    assert list(tmp_path.rglob("out.json")) == []


def test_a_cache_that_cannot_be_written_is_named(
    store: Store, person: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    push(store, folder)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(Failure, match="nothing can be cached in") as caught:
        cached_tokenizer(person, ID, REVISION)

    assert caught.value.hint == "set XDG_CACHE_HOME to another folder"


def test_a_revision_that_is_not_there_is_named(person: Store) -> None:
    with pytest.raises(NotFoundFailure, match="the mirror has no model org/small at revision 1"):
        cached_tokenizer(person, ID, REVISION)


def test_the_catalog_decides_which_revision_is_used(person: Store) -> None:
    assert served_revision(person, ID, platform()) == REVISION


def test_a_model_of_the_catalog_that_is_not_mirrored_is_named_with_the_way_out(
    store: Store, person: Store, folder: Path
) -> None:
    with pytest.raises(NotFoundFailure, match=r"runs get it from the hub, and it is not in") as one:
        served_revision(person, ID, platform(Source.HUB))
    push(store, folder, "7")
    with pytest.raises(NotFoundFailure, match="runs get it from the hub") as other:
        served_revision(person, ID, platform(Source.HUB))

    assert "flash model push org/small --id org/small" in one.value.hint
    assert other.value.hint == "the mirror has it as org/small@7"


def test_a_model_that_nobody_knows_is_named(person: Store) -> None:
    with pytest.raises(NotFoundFailure, match="has no model org/none, and the mirror has none"):
        served_revision(person, "org/none", platform())


def test_a_push_that_is_not_complete_does_not_count(
    store: Store, person: Store, folder: Path
) -> None:
    push(store, folder)
    store.delete([PREFIX + names.MANIFEST])
    with pytest.raises(NotFoundFailure, match="has no model org/small, and the mirror has none"):
        served_revision(person, ID, PublicPlatform())
