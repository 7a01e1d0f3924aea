"""What is switched off while modules are imported is on again afterwards, but not for them."""

import gc
import importlib.metadata
import subprocess
import sys

import pytest

from flashrun_trainer.pod.quick_imports import paused_collector, quick_imports


def test_packages_are_listed_once_and_garbage_waits() -> None:
    listed = importlib.metadata.packages_distributions

    with quick_imports():
        first = importlib.metadata.packages_distributions()
        assert importlib.metadata.packages_distributions() is first
        assert not gc.isenabled()

    assert first == listed()
    assert importlib.metadata.packages_distributions is listed
    assert gc.isenabled()


def test_garbage_waits_while_a_container_loads_its_work() -> None:
    with paused_collector():
        assert not gc.isenabled()

    assert gc.isenabled()


@pytest.mark.parametrize("imports", [quick_imports, paused_collector])
def test_an_import_that_fails_leaves_nothing_switched_off(imports) -> None:
    with pytest.raises(ImportError), imports():
        raise ImportError

    assert gc.isenabled()


@pytest.mark.parametrize("imports", [quick_imports, paused_collector])
def test_a_collector_that_was_off_stays_off(imports) -> None:
    gc.disable()
    try:
        with imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collector_leaves_alone_what_was_imported_first():
    program = (
        "import gc\n"
        "from flashrun_trainer.pod.quick_imports import quick_imports\n"
        "with quick_imports():\n"
        "    kept = [[] for _ in range(1000)]\n"
        "assert not any(item is kept for item in gc.get_objects())\n"
        "frozen = gc.get_freeze_count()\n"
        "with quick_imports():\n"
        "    later = [[] for _ in range(1000)]\n"
        "assert any(item is later for item in gc.get_objects())\n"
        "assert gc.get_freeze_count() <= frozen\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
