"""The folders follow the XDG variables, and logs are outside the state that `down` removes."""

from pathlib import Path

import pytest

from localcluster import folders


def test_the_folders_follow_the_variables_of_xdg(own_folders: None, tmp_path: Path) -> None:
    assert folders.cache() == tmp_path / "cache/flashrun"
    assert folders.state() == tmp_path / "state/flashrun/local"


def test_without_the_variables_they_are_in_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert folders.cache() == tmp_path / ".cache/flashrun"
    assert folders.state() == tmp_path / ".local/state/flashrun/local"


def test_the_log_of_down_survives_down(own_folders: None) -> None:
    assert not folders.logs().is_relative_to(folders.state())


def test_the_path_of_a_socket_is_short_enough() -> None:
    assert len(str(folders.sockets() / "containerd.sock.ttrpc")) < 108


def test_the_repository_is_the_checkout() -> None:
    assert (folders.repository() / "pyproject.toml").exists()
