"""Where an export goes, and what is refused before anything is written."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flashrun.cli.models import export_target
from flashrun.cli.models.export_target import (
    FolderTarget,
    HubTarget,
    S3Target,
    check_target,
    deliver,
    parse_target,
)
from flashrun.cli.output.failure import Failure, UsageFailure
from flashrun.store import Store
from flashrun.store_errors import StoreError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An export of two files."""
    folder = tmp_path / "made"
    (folder / "below").mkdir(parents=True)
    (folder / "a").write_bytes(b"a")
    (folder / "below" / "b").write_bytes(b"b")
    digests = {
        "a": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
        "below/b": "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d",
    }
    (folder / "SHA256SUMS").write_text("".join(f"{d}  {n}\n" for n, d in digests.items()))
    return folder


def test_each_spelling_names_its_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    rules: Any = SimpleNamespace(HFValidationError=ValueError, validate_repo_id=lambda name: None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", rules)

    assert parse_target("s3://bucket/some/place") == S3Target("bucket", "some/place/")
    assert parse_target("hf:org/name") == HubTarget("org/name")
    assert parse_target(str(tmp_path / "new")) == FolderTarget(tmp_path / "new")


WRONG = [
    *("s3://bucket", "s3://bucket/", "s3://B/x", "hf:name", "hf:a/b/c"),
    *("", "gs://bucket/place", "S3://bucket/place", "s3:bucket/place", "HF:org/name"),
    *("hf:", "hf:/name", "hf:org/"),
]


@pytest.mark.parametrize("text", WRONG)
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(UsageFailure) as refused:
        parse_target(text)
    assert repr(text) in refused.value.sentence
    assert refused.value.hint.startswith(("use s3://", "use hf:", "use the name of a new folder"))


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageFailure, match="file is not a folder"):
        parse_target(str(tmp_path / "file" / "new"))


def test_a_link_and_the_folder_of_nobody_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")

    with pytest.raises(UsageFailure, match="is a symbolic link"):
        parse_target(str(tmp_path / "link"))
    with pytest.raises(UsageFailure, match="--to ~nobody-here/x is not a path"):
        parse_target("~nobody-here/x")


def test_what_appears_in_the_place_of_the_folder_meanwhile_is_a_sentence(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "new").touch()

    with pytest.raises(Failure, match="new cannot be written: Not a directory"):
        deliver(folder, FolderTarget(tmp_path / "new"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:99999"}, "the address of storage"),
        ({"AWS_ENDPOINT_URL_S3": "http://[::1"}, "the address of storage"),
        ({"AWS_ENDPOINT_URL_S3": "http://user:pass@127.0.0.1"}, "the address of storage"),
        ({"AWS_REGION": "not a region"}, "the address of storage"),
        ({"AWS_ACCESS_KEY_ID": "a\nb"}, "has a line break or another control character"),
        ({"AWS_SECRET_ACCESS_KEY": "secret-b\r"}, "has a line break"),
    ],
)
def test_variables_that_cannot_be_used_are_named_without_their_value(
    changes: dict[str, str], words: str
) -> None:
    variables = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "secret-b", **changes}

    with pytest.raises((UsageFailure, StoreError), match=words) as refused:
        check_target(S3Target("bucket", "place/"), variables)
    assert "secret-b" not in str(refused.value)
    assert "pass@" not in str(refused.value)


def test_a_hub_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(UsageFailure, match="needs huggingface_hub") as refused:
        parse_target("hf:org/name")
    assert refused.value.hint == "pip install 'flashrun[models]'"


def test_a_prefix_gets_all_files_and_never_those_of_another_export(
    folder: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.ensure_bucket()
    access = store.access
    variables = {
        "AWS_ENDPOINT_URL_S3": access.endpoint,
        "AWS_ACCESS_KEY_ID": access.access_key,
        "AWS_SECRET_ACCESS_KEY": access.secret_key,
    }
    target = S3Target(access.bucket, "handed-over/")

    deliver(folder, target, variables)

    keys = {entry.key: store.get_bytes(entry.key) for entry in store.list("handed-over/")}
    assert keys == {
        f"handed-over/{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    for refuse in (
        lambda: check_target(target, variables),
        lambda: deliver(folder, target, variables),
    ):
        with pytest.raises(UsageFailure, match="has something in it already"):
            refuse()
    store.delete(keys)
    check_target(target, variables)
    (folder / "a").write_bytes(b"changed")
    with pytest.raises(Failure, match="a was changed on this machine"):
        deliver(folder, target, variables)
    assert "handed-over/ may have some of the files, without SHA256SUMS" in capsys.readouterr().err
    with pytest.raises(UsageFailure, match="needs AWS_ACCESS_KEY_ID"):
        check_target(target, {})


def test_the_hub_needs_a_token_before_anything_is_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = iter([None, "hf_example"])
    hub: Any = SimpleNamespace(get_token=lambda: next(tokens))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)

    with pytest.raises(UsageFailure, match="huggingface_hub is older than"):
        check_target(HubTarget("org/name"))
    monkeypatch.setattr(export_target, "bound_hub_waits", lambda: None)
    with pytest.raises(UsageFailure, match="org/name on the hub needs a token"):
        check_target(HubTarget("org/name"))
    check_target(HubTarget("org/name"))


@pytest.mark.parametrize("error", [OSError("no route\nat all"), KeyboardInterrupt()])
def test_a_repository_that_may_be_left_on_the_hub_is_named(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    class Hub:
        def create_repo(self, *_: Any, **__: Any) -> None:
            pass

        def upload_folder(self, **_: Any) -> None:
            raise error

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Hub))  # type: ignore[arg-type]
    monkeypatch.setattr(export_target, "bound_hub_waits", lambda: None)

    with pytest.raises((Failure, KeyboardInterrupt)):
        deliver(folder, HubTarget("org/name"))
    said = capsys.readouterr().err
    assert "the private repository org/name may exist on the hub, without these files" in said


def test_what_the_hub_refuses_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``trainer/test_hub_export.py`` writes to a hub with the real library."""

    class Hub:
        def create_repo(self, *_: Any, **__: Any) -> None:
            raise ValueError("401 Unauthorized\nlong explanation")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Hub))  # type: ignore[arg-type]
    monkeypatch.setattr(export_target, "bound_hub_waits", lambda: None)

    with pytest.raises(Failure, match=r"org/name was not written on the hub: 401 Unauthorized$"):
        deliver(folder, HubTarget("org/name"))
