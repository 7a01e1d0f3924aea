"""One file at two places, on file systems that have hard links and on those that have none."""

import errno
import os
from pathlib import Path

import pytest

from flashrun_trainer.pod.hard_links import link_or_copy


def test_both_places_have_the_same_file(tmp_path: Path) -> None:
    path, target = tmp_path / "weights", tmp_path / "snapshot"
    path.write_bytes(b"w" * 64)
    link_or_copy(path, target)
    assert path.samefile(target)


def test_a_file_system_without_hard_links_gets_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    path, target = tmp_path / "weights", tmp_path / "snapshot"
    path.write_bytes(b"w" * 64)
    link_or_copy(path, target)
    assert (target.read_bytes(), path.samefile(target)) == (b"w" * 64, False)
