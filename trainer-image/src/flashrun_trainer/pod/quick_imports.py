"""Importing thousands of modules without what each of them repeats."""

import functools
import gc
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def quick_imports() -> Iterator[None]:
    """Look for no garbage while modules are imported inside, and list all packages once.

    Modules are made to stay: the collector would look through them again and again and find
    nothing. Afterwards it leaves alone what there is after the first of these imports.
    transformers and TRL ask for the list of all packages more than once.
    """
    packages = functools.cache(importlib.metadata.packages_distributions)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with patch.object(importlib.metadata, "packages_distributions", packages):
            yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():
                gc.freeze()
            gc.enable()
