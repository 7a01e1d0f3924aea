"""Memory that is free within the heap goes back to the system."""

import subprocess
import sys
from pathlib import Path

import pytest

from flashrun.controller import free_memory
from tests.controller.conftest import ALLOCATOR

MEASURED = """
from flashrun.controller.free_memory import find_trim

def anonymous():
    _, resident, shared, *_ = open("/proc/self/statm").read().split()
    return (int(resident) - int(shared)) * 4096 / 2**20

trim = find_trim()
before = anonymous()
pieces = [b"x" * 100_000 for _ in range(200)]
longer = b"y" * 100_000
grown = anonymous() - before
del pieces
trim()
print(grown, anonymous() - before)
"""


def test_what_lies_below_something_that_lives_longer_is_given_back() -> None:
    source = str(Path(free_memory.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", MEASURED],
        env={**ALLOCATOR, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    grown, left = map(float, done.stdout.split())
    assert grown > 15
    assert left < 1


def test_another_c_library_has_nothing_to_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory.ctypes, "CDLL", lambda _: object())
    free_memory.find_trim()()


def test_the_image_has_one_arena_for_all_threads() -> None:
    """Each thread that reads storage would keep what it once needed."""
    assert ALLOCATOR["MALLOC_ARENA_MAX"] == "1"
