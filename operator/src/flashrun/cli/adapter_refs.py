"""References to adapters, as people type them."""

from flashrun.api import names
from flashrun.api.names import Ref
from flashrun.cli.output.failure import UsageFailure


def parse_typed_ref(text: str) -> Ref:
    """Return the adapter that ``text`` names; raises ``UsageFailure``."""
    try:
        return names.parse_ref(text)
    except ValueError as error:
        raise UsageFailure(str(error)) from None


def parse_with_best(text: str, best: bool, command: str) -> Ref:
    """Return the adapter that ``text`` names: with ``best``, a run whose checkpoint is chosen.

    Raises:
        UsageFailure: it is not a reference, or names a checkpoint although ``best`` chooses one.
    """
    ref = parse_typed_ref(text)
    if best and ref.step is not None:
        raise UsageFailure(
            f"--best chooses the checkpoint, and {ref} names one",
            f"use flash {command} {ref.run} --best, or leave out --best",
        )
    return ref
