"""Importing thousands of modules without what each of them repeats."""

import functools
import gc
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """Look for no garbage while modules are imported inside: they are made to stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def quick_imports() -> Iterator[None]:
    """Look for no garbage while modules are imported inside, and list all packages once.

    The collector would look through the modules again and again and find nothing. Afterwards it
    leaves alone what there is after the first of these imports. transformers and TRL ask for the
    list of all packages more than once.
    """
    from unittest.mock import patch  # not small, and most containers need only paused_collector

    packages = functools.cache(importlib.metadata.packages_distributions)
    was_enabled = gc.isenabled()
    with (
        paused_collector(),
        patch.object(importlib.metadata, "packages_distributions", packages),
    ):
        try:
            yield
        finally:
            if was_enabled and not gc.get_freeze_count():
                gc.freeze()
