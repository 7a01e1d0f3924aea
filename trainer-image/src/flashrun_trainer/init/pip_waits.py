"""How long a package index can make pip wait between two tries.

pip waits for as long as an answer asks in ``Retry-After``, and has no option for less. A copy of
this file as ``sitecustomize.py`` in a folder of ``PYTHONPATH`` bounds that in every Python process
that pip starts, also in those that install what a build needs. It imports the standard library
only, and uses of pip the copy of urllib3 in it, whose class ``Retry`` is documented.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

LONGEST_WAIT: Final = 30
"""Most seconds between two tries, whatever an index answers."""
_NAME: Final = "sitecustomize"
_RETRIES: Final = "pip._vendor.urllib3.util.retry"


def bounded_environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return ``variables`` for a pip that waits within bounds; ``folder`` is for its files."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(__file__, folder / f"{_NAME}.py")
    paths = [str(folder), *filter(None, [variables.get("PYTHONPATH")])]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths)}


class _RetriesFinder(MetaPathFinder):
    """Bounds the waits of pip's class ``Retry`` when it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _RETRIES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _BoundingLoader(spec.loader)
        return spec


class _BoundingLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _bound(module.Retry)


def _bound(retry: Any) -> None:
    """Shorten what an answer asks for; a number of too many digits is not read."""
    parse = retry.parse_retry_after

    def bounded(self: Any, asked: str) -> float:
        digits = asked.strip()
        if digits.isdigit() and len(digits) > len(str(LONGEST_WAIT)):
            return LONGEST_WAIT
        return min(float(parse(self, asked)), LONGEST_WAIT)

    retry.parse_retry_after = bounded


def _run_shadowed() -> None:
    """Run the ``sitecustomize`` of the image, which this one comes before."""
    own = os.path.dirname(os.path.abspath(__file__))
    others = [path for path in sys.path if os.path.abspath(path) != own]
    spec = PathFinder.find_spec(_NAME, others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == _NAME:
    sys.meta_path.insert(0, _RetriesFinder())
    _run_shadowed()
