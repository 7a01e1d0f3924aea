"""Libraries that others import when they are installed, although a run does not use them.

TRL imports trackers, but metrics go to storage, and to Weights & Biases from a process of its own;
and vLLM, which samples the completions of GRPO, and is in the image of other runs, too. The client
for storage brings one for administrators, whose cryptography reads C declarations with cffi, or
does without it.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

TRACKERS: Final = ("wandb", "mlflow", "trackio", "comet_ml")
OF_STORAGE: Final = ("cffi",)


@contextmanager
def hidden(names: Iterable[str]) -> Iterator[None]:
    """Let what is imported inside find none of these libraries.

    Afterwards they can be imported again: an environment may use them. What is loaded stays.
    """
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in absent:
            if sys.modules.get(name, absent) is None:
                del sys.modules[name]
