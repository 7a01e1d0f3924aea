"""Folders that a command is to make: what cannot be replaced is refused before anything is made."""

from pathlib import Path

import pytest

from flashrun.cli.new_folder import expanded, refuse_taken_folder
from flashrun.cli.output.failure import UsageFailure


def test_a_new_or_an_empty_folder_is_free(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    refuse_taken_folder(tmp_path / "empty")
    refuse_taken_folder(tmp_path / "new")
    refuse_taken_folder(tmp_path / "new" / "below")


def test_what_a_folder_cannot_take_the_place_of_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full" / "in").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("full/in")
    (tmp_path / "lost").symlink_to("nowhere")
    for name, words in (
        ("full", "exists already"),
        ("file", "exists already"),
        ("link", "is a symbolic link"),
        ("lost", "is a symbolic link"),
    ):
        with pytest.raises(UsageFailure, match=f"{name} {words}"):
            refuse_taken_folder(tmp_path / name)
    monkeypatch.chdir(tmp_path / "full" / "in")
    for folder in (Path(), tmp_path / "full" / "in"):
        with pytest.raises(UsageFailure, match="is the folder that you are in"):
            refuse_taken_folder(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "in")
    with pytest.raises(UsageFailure, match="is a mounted volume") as refused:
        refuse_taken_folder(tmp_path / "full" / "in")
    assert refused.value.hint == "name a new folder in it"


def test_a_tilde_is_the_folder_of_a_user_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")

    assert expanded("--to", "~/x") == Path("/home/me/x")
    with pytest.raises(UsageFailure, match="--to ~nobody-here/x is not a path"):
        expanded("--to", "~nobody-here/x")
