"""Modules of an environment that Python would import in place of the trainer's own.

``flash env push`` refuses them by their names; here also packages that were pushed before, further
folders on Python's path, and the packages that this image really has.
"""

import sys
from collections.abc import Collection, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.trainer_modules import SHADOWING_HINT, TRAINER_MODULES, shadowing_files
from flashrun_trainer.pod.trainer_errors import TrainerError

_SHIPPED_BY_MISTAKE: Final = frozenset(
    {"benchmarks", "docs", "examples", "scripts", "test", "tests", "tools"}
)
"""Folders that some packages install beside themselves; no package imports them."""


def image_modules() -> frozenset[str]:
    """Return the modules that an environment must not replace in this image."""
    installed = {name for name in packages_distributions() if name.isidentifier()}
    return TRAINER_MODULES | (installed - _SHIPPED_BY_MISTAKE)


def refuse_shadowing(folder: Path, modules: Collection[str]) -> None:
    """Refuse an environment in ``folder`` that has a module with one of these names.

    It looks at each folder of the environment that is on Python's path, and at what was imported.

    Raises:
        TrainerError: there is such a module; it names the file.
    """
    folder = folder.resolve()
    entries = {folder, *(Path(entry).resolve() for entry in sys.path)}
    for entry in sorted(entry for entry in entries if entry.is_relative_to(folder)):
        for file in shadowing_files(_importable_files(entry), modules):
            raise _shadowing_error((entry / file).relative_to(folder))
    for name in sorted(set(modules) & set(sys.modules)):
        imported = getattr(sys.modules[name], "__file__", None)
        if imported and Path(imported).resolve().is_relative_to(folder):
            raise _shadowing_error(Path(imported).resolve().relative_to(folder))


def _importable_files(folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        inner = path.glob("__init__.*") if path.is_dir() else (path,)
        yield from (file.relative_to(folder).as_posix() for file in inner)


def _shadowing_error(file: Path) -> TrainerError:
    return TrainerError(
        Exit.ENVIRONMENT,
        Reason.ENVIRONMENT_INVALID,
        f"the environment's {file.as_posix()} has the name of a module that the trainer imports",
        f"{SHADOWING_HINT}, and publish it again with flash env push",
    )
