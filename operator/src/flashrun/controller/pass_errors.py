"""What an error that ended a pass means for the run: a reason, and one sentence for people."""

import traceback
from pathlib import PurePath
from typing import Final

from flashrun.api.reasons import Reason
from flashrun.cluster_errors import ClusterError
from flashrun.store_errors import StoreError

_PACKAGE: Final = "flashrun"


def explain_error(error: Exception) -> tuple[Reason, str]:
    """Return the reason for an error and a sentence, which is the other side's where it has one.

    The text of an error that nobody expected stays in the log: it may hold a value of a Secret.
    """
    match error:
        case StoreError():
            return Reason.STORAGE_UNAVAILABLE, str(error)
        case ClusterError(temporary=False):
            return Reason.CLUSTER_REFUSES, str(error)
        case ClusterError():
            return Reason.CLUSTER_UNAVAILABLE, str(error)
        case _:
            message = (
                f"The operator failed with {type(error).__name__}{_place(error)} and tries again; "
                "its log has the details. Please report it."
            )
            return Reason.OPERATOR_FAILED, message


def _place(error: Exception) -> str:
    """Return the last function of ours in which an error was raised."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        *folders, file = PurePath(frame.filename).parts
        if _PACKAGE in folders:
            begin = len(folders) - folders[::-1].index(_PACKAGE) - 1
            module = ".".join((*folders[begin:], PurePath(file).stem))
            return f" in {module}.{frame.name}"
    return ""
