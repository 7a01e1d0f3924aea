"""``[environment.params]`` and the arguments of an environment's ``load_environment``.

The SDK passes on the parameters that the function takes and drops the others: a run whose
parameter is misspelled would train on something else.
"""

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.pod.trainer_errors import TrainerError

_OURS: Final = frozenset({"split", "dataset_path", "contract_text", "contract_path", "records"})
"""Parameters that mean something whether the function takes them or not."""


def arguments_of(module: Path, function: str) -> frozenset[str] | None:
    """Return the names that a function of an imported file takes; None when it takes any."""
    factory = imported_function(module, function)
    if factory is None:
        return None
    taken = inspect.signature(factory).parameters
    any_name = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in taken.values())
    return None if any_name else frozenset(taken)


def imported_function(module: Path, function: str) -> Callable[..., Any] | None:
    """Return a function of a file; None if the file was not imported or has none of this name."""
    path = module.resolve()
    files = ((item, str(getattr(item, "__file__", ""))) for item in list(sys.modules.values()))
    # There are thousands, and a Path takes longer than a comparison of strings.
    named_alike = (item for item, file in files if file.endswith(path.name) and Path(file) == path)
    imported = next(named_alike, None)
    found = getattr(imported, function, None)
    return found if callable(found) else None


def refuse_unknown(params: Mapping[str, Any], arguments: Collection[str] | None) -> None:
    """Raise ``TrainerError`` for a parameter that nobody reads; it names the nearest one."""
    if arguments is None:
        return
    known = sorted({*arguments, *_OURS})
    for name in params:
        if name in known:
            continue
        near = get_close_matches(name, known, 1)
        has = ", ".join(sorted(arguments)) or "none"
        raise TrainerError(
            Exit.ENVIRONMENT,
            Reason.ENVIRONMENT_INVALID,
            f"load_environment has no argument {name}, which [environment.params] sets",
            f"did you mean {near[0]}?" if near else f"remove it; its arguments: {has}",
        )
