"""Libraries that a run does not use are not found while the training stack is imported."""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from flashrun_trainer.pod.unused_libraries import hidden


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed library that nobody has imported."""
    (tmp_path / "some_tracker.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "some_tracker", raising=False)
    return "some_tracker"


def test_a_hidden_library_is_not_found_and_can_be_imported_afterwards(library: str) -> None:
    with hidden([library]):
        assert importlib.util.find_spec(library) is None
        with pytest.raises(ImportError):
            importlib.import_module(library)
    assert importlib.import_module(library).__name__ == library


def test_a_library_that_is_loaded_stays(library: str) -> None:
    loaded = importlib.import_module(library)
    with hidden([library]):
        assert importlib.import_module(library) is loaded
    assert sys.modules[library] is loaded


def test_an_error_inside_leaves_nothing_hidden(library: str) -> None:
    with pytest.raises(RuntimeError), hidden([library]):
        raise RuntimeError
    assert importlib.util.find_spec(library) is not None
